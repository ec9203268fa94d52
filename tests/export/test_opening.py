"""The models of a comparison, opened by what kind of thing each one is."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.errors import UsageError
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.variants import VARIANTS
from effnet_edge.pictures.image import normalize
from effnet_export.model_files import Openings
from effnet_export.opening import open_models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIDE = 32


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def network(seed: int) -> EfficientNet:
    torch.manual_seed(seed)
    return EfficientNet(VARIANTS["b0"], num_classes=3, resolution=SIDE).eval()


def saved(path: Path, network: EfficientNet) -> str:
    torch.save(network.state_dict(), path)
    return str(path)


def test_torch_is_the_network_of_the_request_and_a_checkpoint_its_own(
    tmp_path: Path, stack: ExitStack
) -> None:
    ours, other = network(1), network(2)
    ours_file, other_file = saved(tmp_path / "1.pth", ours), saved(tmp_path / "2.pth", other)
    openings = Openings(NetworkRequest("b0", ours_file, resolution=SIDE, mean=(0.5,) * 3))

    models = open_models("torch", [other_file], openings, stack)

    assert models.preprocessing.mean == (0.5, 0.5, 0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    x = torch.from_numpy(normalize(pixels, models.preprocessing))
    stem = "stem.act"
    pair = (models.reference, ours), (models.candidates[0], other)
    layers = [each.activations(pixels, [stem])[stem] for each in models.layer_pair(0)]
    for (model, expected), layer in zip(pair, layers, strict=True):
        with torch.inference_mode():
            np.testing.assert_allclose(model.infer(pixels), expected(x), atol=1e-4)
            np.testing.assert_allclose(layer, expected.stem(x), atol=1e-4)


def test_the_kind_of_output_is_the_requests_where_no_bundle_tells(
    tmp_path: Path, stack: ExitStack
) -> None:
    file = saved(tmp_path / "1.pth", network(1))
    request = NetworkRequest("b0", file, output_kind="multi-label", resolution=SIDE)

    assert open_models("torch", [file], Openings(request), stack).output_kind == "multi-label"


def test_a_bundle_whose_checkpoint_is_gone_says_so(tmp_path: Path, stack: ExitStack) -> None:
    path = write_bundle(tmp_path / "bundle", "onnxruntime", tiny_model())

    with pytest.raises(UsageError, match="give --weights FILE"):
        open_models("torch", [str(path)], Openings(NetworkRequest("b0")), stack)
