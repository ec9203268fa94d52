from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tiny_networks import kept_by
from torch import nn

from effnet_calibration import last_projection
from effnet_calibration.work import Settings
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Sequence


def kept_in(network: EfficientNet, settings: Settings, before: Sequence[str] = ()) -> set[str]:
    return kept_by(last_projection.STEP, network, settings, before)


@pytest.mark.parametrize("variant", ["b0", "lite0", "es", "v2-s"])
def test_the_last_convolution_of_the_last_block_is_kept(variant: str) -> None:
    network = EfficientNet(VARIANTS[variant], resolution=32, num_classes=3)
    convolutions = [
        name
        for name, module in network.stages.named_modules(prefix="stages")
        if isinstance(module, nn.Conv2d)
    ]
    last = network.get_submodule(convolutions[-1])
    assert last.kernel_size == (1, 1)

    assert kept_in(network, Settings(keep_last_projection=True)) == {convolutions[-1]}
    both = kept_in(network, Settings(keep_last_projection=True), ["classifier"])
    assert both == {convolutions[-1], "classifier"}
    assert kept_in(network, Settings()) == set()
