from __future__ import annotations

import pytest
from torch import nn

from effnet_calibration import kept_depthwise
from effnet_calibration.path import NetworkPath
from effnet_calibration.quantization import Quantization
from effnet_calibration.schemes import ASYMMETRIC_UINT8
from effnet_calibration.work import Settings, Work
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS


@pytest.mark.parametrize("variant", ["b0", "es", "v2-s"])
def test_all_depthwise_convolutions_are_kept_beside_what_was(variant: str) -> None:
    network = EfficientNet(VARIANTS[variant], resolution=32, num_classes=3)

    def kept_in(settings: Settings) -> set[str]:
        work = Work(
            network=network,
            path=NetworkPath.of(network),
            scheme=ASYMMETRIC_UINT8,
            preprocessing=None,
            statistics={},
            exact=None,
            simulate=lambda _: network,
            settings=settings,
        )
        part = Quantization(ASYMMETRIC_UINT8.name).keeping(["classifier"])
        return set(kept_depthwise.STEP.decide(work, part).kept)

    depthwise = {
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
    }
    assert depthwise
    assert kept_in(Settings(keep_depthwise=True)) == {*depthwise, "classifier"}
    assert kept_in(Settings()) == {"classifier"}
