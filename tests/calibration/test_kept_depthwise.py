from __future__ import annotations

from typing import TYPE_CHECKING

from tiny_networks import PREPROCESSING, Smooth, random_network
from torch import nn

from effnet_calibration.calibrate import observe, tabulate
from effnet_calibration.quantized import apply
from effnet_calibration.schemes import ASYMMETRIC_UINT8
from effnet_calibration.work import Settings

if TYPE_CHECKING:
    from effnet_calibration.table import CalibrationTable


def test_all_depthwise_convolutions_are_kept_and_read_no_grid() -> None:
    network = random_network()
    observed = observe(network, Smooth(32), PREPROCESSING)

    def table(*, keep: bool) -> CalibrationTable:
        return tabulate(observed, (ASYMMETRIC_UINT8,), Settings(keep_depthwise=keep))

    depthwise = {
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
    }
    kept = table(keep=True)
    assert set(kept.quantization(ASYMMETRIC_UINT8.name).kept) == depthwise
    assert not table(keep=False).quantization(ASYMMETRIC_UINT8.name).kept
    assert not depthwise & apply(network, kept, ASYMMETRIC_UINT8).inputs.keys()
