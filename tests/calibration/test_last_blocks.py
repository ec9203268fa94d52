from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tiny_networks import kept_by
from torch import nn

from effnet_calibration import last_blocks
from effnet_calibration.work import Settings
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Sequence


def kept_in(network: EfficientNet, settings: Settings, before: Sequence[str] = ()) -> set[str]:
    return kept_by(last_blocks.STEP, network, settings, before)


@pytest.mark.parametrize("variant", ["b0", "b1", "lite0", "es", "v2-s"])
def test_the_last_convolutions_of_the_last_blocks_are_kept(variant: str) -> None:
    network = EfficientNet(VARIANTS[variant], resolution=32, num_classes=3)
    blocks = [block for stage in network.stages for block in stage]
    names = {module: name for name, module in network.named_modules()}
    convolutions = [
        [each for each in block.modules() if isinstance(each, nn.Conv2d)] for block in blocks[-4:]
    ]
    expected = {names[each[-1]] for each in convolutions}
    assert all(each[-1].kernel_size == (1, 1) for each in convolutions)
    # The last block's depthwise convolution, and the first of its gate's two where it has one.
    _, *between, _ = convolutions[-1]
    assert between[0].groups == between[0].in_channels
    expected |= {names[each] for each in between[:2]}
    if variant in {"lite0", "es"}:  # They have ReLUs, and lose nothing in 8 bit.
        expected = set()

    kept = Settings(keep_last_blocks=True)
    assert kept_in(network, kept) == expected
    assert kept_in(network, kept, ["classifier"]) == {*expected, "classifier"}
    assert kept_in(network, Settings()) == set()
