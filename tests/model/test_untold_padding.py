"""Where nothing tells the padding, and networks of either have the same names, that is said."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch

from effnet_edge.errors import CheckpointWarning
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, translate
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import Source, load_source
from effnet_edge.model.variants import VARIANTS

if TYPE_CHECKING:
    from pathlib import Path

SCHEMES = {scheme.name: scheme for scheme in NAMING_SCHEMES}
WARNING = "net.pth does not say how its network pads.*: taken for same with an epsilon of 0.001"


@pytest.fixture(scope="module")
def network() -> EfficientNet:
    return EfficientNet(VARIANTS["b0"], num_classes=3, resolution=32, padding="symmetric")


def saved(folder: Path, network: EfficientNet, naming: str) -> str:
    """The network as another code base saves it, or an older version of this."""
    names = translate(network.tensors(), SCHEMES[naming])
    state = network.state_dict()
    torch.save({theirs: state[own] for own, theirs in names.items()}, folder / "net.pth")
    return str(folder / "net.pth")


def load(weights: str, **said: Any) -> Source:
    return load_source(NetworkRequest("b0", weights, resolution=32, **said))


@pytest.mark.parametrize("naming", ["geffnet", "effnet-edge"])
def test_what_is_taken_is_said(tmp_path: Path, network: EfficientNet, naming: str) -> None:
    with pytest.warns(CheckpointWarning, match=WARNING):
        source = load(saved(tmp_path, network, naming))
    assert source.network.padding == "same"


@pytest.mark.parametrize("padding", ["same", "symmetric", "same-timm"])
def test_who_says_it_is_told_nothing(tmp_path: Path, network: EfficientNet, padding: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        load(saved(tmp_path, network, "geffnet"), padding=padding)


@pytest.mark.parametrize("naming", ["torchvision", "PyTorch tutorial"])
def test_a_code_base_that_always_pads_alike_says_it(
    tmp_path: Path, network: EfficientNet, naming: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        load(saved(tmp_path, network, naming))


def test_a_config_says_it(tmp_path: Path, network: EfficientNet) -> None:
    weights = saved(tmp_path, network, "geffnet")
    config = {"architecture": "efficientnet_b0", "num_classes": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        assert load(weights).network.padding == "symmetric"


def test_published_weights_and_networks_of_ours_say_it(
    tmp_path: Path, network: EfficientNet
) -> None:
    torch.save(network.state_dict(), tmp_path / "own.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        load("imagenet")
        load("random")
        assert load(str(tmp_path / "own.pth")).network.padding == "symmetric"
