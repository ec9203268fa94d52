"""Tunes of the tiny model of `tiny_bundles`: real engines, judged and timed, from made-up exports.

A candidate in INT8 is the model with noise in its weights: the more hard-swishes, the more noise.
"""

from __future__ import annotations

import tempfile
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch
from onnx import numpy_helper
from PIL import Image
from tiny_bundles import PREPROCESSING, tiny_model, write_bundle
from torch import nn

from effnet_edge.bundle import Bundle
from effnet_edge.errors import GateError
from effnet_edge.pictures.sets import ImageSet
from effnet_export.loading import Loaded
from effnet_export.pictures import ExportPictures
from effnet_export.pipeline import ExportResult
from effnet_export.tuning import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx
    import pytest

    from effnet_export.request import ExportRequest

NOISE = {"fp32": 0.0, "fp16": 1e-4, "int8": 0.05}
MILLISECONDS = {"fp32": 20.0, "fp16": 15.0, "int8": 10.0}


class TinyNetwork(nn.Module):
    """What `tiny_model` computes, of normalized pixels."""

    output_kind, activation, output_size = "single-label", "silu", 5

    def __init__(self) -> None:
        super().__init__()
        weights = {
            each.name: numpy_helper.to_array(each) for each in tiny_model().graph.initializer
        }
        self._weights = {name: torch.tensor(value) for name, value in weights.items()}
        self._mean = torch.tensor(PREPROCESSING.mean).view(1, -1, 1, 1)
        self._std = torch.tensor(PREPROCESSING.std).view(1, -1, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        unit = image * self._std + self._mean
        features = torch.relu(torch.conv2d(unit, self._weights["kernel"])).mean((2, 3))
        return features @ self._weights["dense"] + self._weights["bias"]


def in_a_folder_with_photos(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make it the working directory, with pictures; what is temporary goes to `tmp` in it."""
    photos(folder)
    (folder / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "tmp"))
    monkeypatch.chdir(folder)
    return folder


def photos(folder: Path, count: int = 64) -> Path:
    """Noise of several colours, in a folder of its own."""
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for index in range(count):
        pixels = random.integers(0, random.integers(2, 256), (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{index:03}.png")
    return folder / "photos"


def exported(request: ExportRequest, *_: object, **__: object) -> ExportResult:
    """As `export_bundle`, but that the tightest budget cannot be met."""
    if request.loss_share == 0.25:
        raise GateError("the budget cannot be met: allow more")
    noise = NOISE[request.chosen_precision]
    if request.fast_activations:
        noise *= 4 * request.fast_share
    target = "onnxruntime"  # which opens it in a moment, where OpenVINO compiles it
    if request.chosen_target.built_on_device:
        target = request.target
        noise *= request.loss_share or 1
    path = write_bundle(
        request.directory,
        target,
        with_noise(noise),
        labels=None,
        precision=request.chosen_precision,
        preprocessing=PREPROCESSING,
    )
    return ExportResult(Bundle.load(path), {})


def seconds(
    bundles: dict[str, Bundle], _: object, size: int = 1, _rounds: int = 0
) -> dict[str, list[float]]:
    """Made-up times of the candidates, so that the same one is always the fastest."""
    taken = {}
    for name, bundle in bundles.items():
        each = size * MILLISECONDS[bundle.manifest.precision] / 1e3
        taken[name] = [each * (0.6 if "fast" in name else 1.0)] * 3
    return taken


def per_second(bundles: dict[str, Bundle], _: object) -> dict[str, float]:
    """Made-up pictures a second: twice as many as one after the other."""
    return {name: 2e3 / MILLISECONDS[each.manifest.precision] for name, each in bundles.items()}


def stand_in(patch: pytest.MonkeyPatch, export: Callable[..., ExportResult] = exported) -> None:
    """Let a tune load the tiny network and export it in a moment."""

    def load(request: ExportRequest, _: object, share: float, bundle: Bundle | None) -> Loaded:
        del bundle
        network = TinyNetwork()
        source = SimpleNamespace(network=network, preprocessing=PREPROCESSING)
        pictures = ExportPictures(request, None, 3, share)
        assert isinstance(pictures.calibrated_on, ImageSet)
        return Loaded(source, network, None, pictures)  # type: ignore[arg-type]

    patch.setattr(run, "load", load)
    patch.setattr(run, "_observed", lambda *_: None)
    patch.setattr(run, "export_bundle", export)
    patch.setattr(run, "seconds_in_turns", seconds)
    patch.setattr(run, "images_per_second", per_second)


def with_noise(deviation: float) -> onnx.ModelProto:
    model = tiny_model()
    random = np.random.default_rng(1)
    (kernel,) = (each for each in model.graph.initializer if each.name == "kernel")
    values = numpy_helper.to_array(kernel)
    changed = values + deviation * random.normal(size=values.shape).astype(np.float32)
    kernel.CopyFrom(numpy_helper.from_array(changed, "kernel"))
    return model
