"""The network that an export starts from takes over what its weights were trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from effnet_edge.errors import UsageError
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, translate
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.source import load_source
from effnet_edge.model.variants import VARIANTS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def torchvision_b2(tmp_path: Path) -> str:
    scheme = next(scheme for scheme in NAMING_SCHEMES if scheme.name == "torchvision")
    state = EfficientNet(VARIANTS["b2"], num_classes=3, resolution=32).state_dict()
    path = tmp_path / "b2.pth"
    torch.save({theirs: state[ours] for ours, theirs in translate(state, scheme).items()}, path)
    return str(path)


def test_resolution_crop_and_padding_are_those_of_the_weights(torchvision_b2: str) -> None:
    source = load_source("b2", weights=torchvision_b2, num_classes=3)

    assert source.preprocessing.resolution == source.network.resolution == 288
    assert source.preprocessing.crop_fraction == 1.0
    assert source.network.padding == "symmetric"


def test_what_the_user_says_outweighs_them(torchvision_b2: str) -> None:
    source = load_source("b2", weights=torchvision_b2, num_classes=3, resolution=64, padding="same")

    assert source.preprocessing.resolution == source.network.resolution == 64
    assert source.network.padding == "same"
    with torch.no_grad():
        source.network(torch.zeros(1, 3, 64, 64))


def test_a_variant_without_imagenet_weights_is_never_random_by_itself() -> None:
    with pytest.raises(UsageError, match="l2 has no weights named imagenet.*noisy-student"):
        load_source("l2")
