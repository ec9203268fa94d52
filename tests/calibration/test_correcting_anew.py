"""Biases and gain are found for a network without any, and told with the logits that they give."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import pytest
from tiny_networks import normalized, random_network

from effnet_calibration.bias_correction import correct
from effnet_calibration.equalization import scale_logits
from effnet_calibration.outputs import ExactOutputs
from effnet_calibration.quantization import BIASES, Quantization
from effnet_calibration.schemes import ASYMMETRIC_UINT8
from effnet_calibration.work import Settings

if TYPE_CHECKING:
    import torch

    from effnet_edge.model.network import EfficientNet

NARROWED = 0.5


def spread_left(exact: torch.Tensor, found: torch.Tensor) -> float:
    """The slope of the one over the other, each picture's logits less their mean."""
    exact, found = (each.double() - each.double().mean(1, keepdim=True) for each in (exact, found))
    return float((exact * found).sum() / exact.square().sum())


@pytest.mark.parametrize("gain", [True, False])
def test_earlier_corrections_count_for_nothing(gain: bool) -> None:
    network = random_network()
    exact = ExactOutputs.of(network, [normalized(4, 0)])
    earlier = Quantization(ASYMMETRIC_UINT8.name, logit_gain=3.0)
    earlier = earlier.changing(BIASES, {"stem.conv": (9.0,) * exact.means["stem.conv"].numel()})
    given: list[Quantization] = []

    def simulate(quantization: Quantization) -> EfficientNet:
        given.append(quantization)
        narrowed = deepcopy(network)
        scale_logits(narrowed, NARROWED)
        return narrowed

    settings = Settings(correct_gain=gain)
    found, logits = correct(network, earlier, exact, simulate, settings)

    assert given == [earlier.uncorrected()]
    assert max(map(abs, found.changes(BIASES)["stem.conv"])) < 0.1
    left = spread_left(exact.logits, logits)
    if gain:
        assert found.logit_gain < 0.95
        assert left == pytest.approx(1.0, abs=1e-3)
    else:
        assert found.logit_gain == 1
        assert left < 0.95
