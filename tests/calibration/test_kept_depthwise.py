from __future__ import annotations

import pytest
from tiny_networks import kept_by
from torch import nn

from effnet_calibration import kept_depthwise
from effnet_calibration.work import Settings
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS


def kept_in(network: EfficientNet, settings: Settings) -> set[str]:
    return kept_by(kept_depthwise.STEP, network, settings, ["classifier"])


def depthwise(network: EfficientNet) -> list[str]:
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
    ]


@pytest.mark.parametrize("variant", ["b0", "es", "v2-s"])
def test_all_depthwise_convolutions_are_kept_beside_what_was(variant: str) -> None:
    network = EfficientNet(VARIANTS[variant], resolution=32, num_classes=3)
    assert depthwise(network)
    all_kept = kept_in(network, Settings(keep_depthwise="all"))
    assert all_kept == {*depthwise(network), "classifier"}
    assert kept_in(network, Settings()) == {"classifier"}


@pytest.mark.parametrize(
    ("variant", "resolution", "kept"), [("b0", 224, 12), ("b0", 112, 14), ("b0", 230, 10)]
)
def test_small_ones_read_maps_of_28_by_28_at_most(variant: str, resolution: int, kept: int) -> None:
    network = EfficientNet(VARIANTS[variant], resolution=resolution, num_classes=3)
    small = kept_in(network, Settings(keep_depthwise="small"))
    # The maps only shrink, so that they are the last ones.
    assert small == {*depthwise(network)[-kept:], "classifier"}


def test_with_relus_none_is_small_enough() -> None:
    network = EfficientNet(VARIANTS["lite0"], resolution=32, num_classes=3)
    assert kept_in(network, Settings(keep_depthwise="small")) == {"classifier"}
