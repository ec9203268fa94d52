"""`export` and `parity` with engines that are wrong at exactly one batch size."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from picture_makers import folder_of_noise
from tiny_bundles import SIDE, tiny_model, write_bundle

from effnet_edge.bundle import BatchRange, Bundle
from effnet_edge.cli.main import cli
from effnet_edge.errors import GateError
from effnet_edge.model.request import NetworkRequest
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.litert import LiteRtBackend
from effnet_edge.runtime.onnxruntime import OnnxRuntimeBackend
from effnet_edge.runtime.openvino import OpenVinoBackend
from effnet_edge.runtime.openvino_core import openvino_core
from effnet_export.pipeline import export_bundle
from effnet_export.request import ExportRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Plant = Callable[[type, int], None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Makes `infer` of a class answer nonsense at one batch size."""

    def planted(kind: type, size: int) -> None:
        run = kind.infer

        def infer(self: object, batch: np.ndarray) -> np.ndarray:
            logits = run(self, batch)
            return logits[:, ::-1].copy() if len(batch) == size else logits

        monkeypatch.setattr(kind, "infer", infer)

    return planted


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folder_of_noise(tmp_path / "photos", 20, SIDE)


def parity(tmp_path: Path, target: str, photos: Path, *options: str) -> Result:
    """A tiny dynamic bundle for 1 to 8 images, best 4, against the same network elsewhere."""
    candidate = write_bundle(tmp_path / "candidate", target, tiny_model(batch="N"))
    other = "onnxruntime" if target == "openvino" else "openvino"
    reference = write_bundle(tmp_path / "reference", other, tiny_model(batch="N"))
    words = ["parity", candidate, "--reference", reference, "--images", photos, *options]
    return CliRunner().invoke(cli, [*map(str, words), "--batch-size", "4"])


@pytest.mark.parametrize("target", ["openvino", "onnxruntime"])
def test_parity_tells_that_an_engine_is_the_same_at_all_sizes(
    tmp_path: Path, target: str, photos: Path
) -> None:
    done = parity(tmp_path, target, photos, "--json")

    assert done.exit_code == 0, done.output
    (candidate,) = json.loads(done.stdout)["candidates"]
    assert [each["size"] for each in candidate["batch_sizes"]] == [1, 3, 4, 5, 7, 8, 9]
    assert not any(each["failures"] for each in candidate["batch_sizes"])


BACKENDS = {
    "openvino": OpenVinoBackend,
    "onnxruntime": OnnxRuntimeBackend,
    "litert": LiteRtBackend,
}


@pytest.mark.sample
@pytest.mark.parametrize("size", [1, 3, 7, 8])
@pytest.mark.parametrize("target", BACKENDS)
def test_parity_names_the_one_size_at_which_an_engine_is_wrong(
    tmp_path: Path, target: str, photos: Path, plant: Plant, size: int
) -> None:
    plant(BACKENDS[target], size)

    done = parity(tmp_path, target, photos, "--json")

    assert done.exit_code == 1, done.output
    (candidate,) = json.loads(done.stdout)["candidates"]
    wrong = [each["size"] for each in candidate["batch_sizes"] if each["failures"]]
    # The runner splits 9 images into 8 and 1.
    assert wrong == ([size, 9] if size in (1, 8) else [size])
    assert any(line.startswith(f"at batch {size}: ") for line in candidate["failures"])


def test_parity_names_a_runner_that_is_wrong_beyond_the_maximum_everywhere_it_reports(
    tmp_path: Path, photos: Path, plant: Plant
) -> None:
    plant(EngineRunner, 9)

    page = tmp_path / "report.html"
    done = parity(tmp_path, "openvino", photos, "--report", str(page))

    assert done.exit_code == 1, done.output
    assert "FAILED: candidate: at batch 9: picture" in done.output
    assert "at batch 9: picture" in page.read_text(encoding="utf-8")
    assert "at batch 9: picture" in page.with_suffix(".junit.xml").read_text(encoding="utf-8")
    suite = ElementTree.parse(page.with_suffix(".junit.xml")).getroot()
    assert suite.get("failures") == "1"


def request(path: Path, **changes: object) -> ExportRequest:
    options = {"precision": "fp32", "batch": BatchRange(1, 2, 4)} | changes
    return ExportRequest(NetworkRequest("b0", resolution=64), output=path / "bundle", **options)


@pytest.mark.parametrize(
    ("target", "kind", "size"),
    [
        pytest.param(
            *("onnxruntime", OnnxRuntimeBackend, 4),
            id="only at the maximum",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("openvino", OpenVinoBackend, 3), id="only at an odd size", marks=pytest.mark.sample
        ),
        pytest.param(
            *("openvino", EngineRunner, 5), id="only beyond the maximum", marks=pytest.mark.slow
        ),
    ],
)
def test_an_engine_that_is_wrong_at_one_size_is_never_written(
    tmp_path: Path, plant: Plant, target: str, kind: type, size: int
) -> None:
    plant(kind, size)

    with pytest.raises(GateError, match=rf"^{target} changed the model: .*at batch {size}: "):
        export_bundle(request(tmp_path, target=target))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.sample
def test_an_int8_bundle_for_openvino_is_right_at_every_size_and_refuses_what_is_not(
    tmp_path: Path,
) -> None:
    side = 128  # At 64 INT8 itself leaves less than the limit on what sizes may differ by.
    changes = {"target": "openvino", "precision": "int8", "calibration_size": 16}
    asked = replace(request(tmp_path, **changes), network=NetworkRequest("b0", resolution=side))

    bundle = export_bundle(asked).bundle

    stages = {stage.stage: stage.batch_sizes for stage in bundle.manifest.parity}
    assert stages["openvino"] == (1, 2, 3, 4, 5)
    assert stages["export"] == stages["quantize"] == (1, 2, 3)
    assert Bundle.load(bundle.path).manifest.parity == bundle.manifest.parity
    core = openvino_core()
    alone = core.read_model(bundle.model_path)
    assert str(alone.input(0).partial_shape[0]) == "2..4"
    alone.reshape([1, side, side, 3])
    static = core.compile_model(alone, "CPU")
    preprocessing = bundle.manifest.preprocessing
    pictures, _ = next(EmbeddedPhotos(9).batches(preprocessing, 9, []))
    wanted = np.concatenate([static(picture[None])[0] for picture in pictures])
    signal = np.square(wanted).sum(1).mean()
    with EngineRunner.load(bundle.path) as runner:
        for size in range(1, 10):
            noise = np.square(runner.infer(pictures[:size]) - wanted[:size]).sum(1)
            assert (noise < signal / 10**1.5).all(), size
