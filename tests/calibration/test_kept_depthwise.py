from __future__ import annotations

import pytest
from tiny_networks import kept_by
from torch import nn

from effnet_calibration import kept_depthwise
from effnet_calibration.work import Settings
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS


@pytest.mark.parametrize("variant", ["b0", "es", "v2-s"])
def test_all_depthwise_convolutions_are_kept_beside_what_was(variant: str) -> None:
    network = EfficientNet(VARIANTS[variant], resolution=32, num_classes=3)

    def kept_in(settings: Settings) -> set[str]:
        return kept_by(kept_depthwise.STEP, network, settings, ["classifier"])

    depthwise = {
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
    }
    assert depthwise
    assert kept_in(Settings(keep_depthwise=True)) == {*depthwise, "classifier"}
    assert kept_in(Settings()) == {"classifier"}
