from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from tiny_networks import PREPROCESSING, SIDE, Smooth, normalized

from effnet_calibration.calibrate import calibrate
from effnet_calibration.estimated_costs import DIRECTIONS, estimate_costs, softmax_directions
from effnet_calibration.schemes import ASYMMETRIC_UINT8
from effnet_calibration.sensitivity import sensitivity
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source

if TYPE_CHECKING:
    from collections.abc import Sequence


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(any))
def test_directions_weigh_errors_as_the_fisher_information_does(masses: Sequence[float]) -> None:
    probabilities = torch.tensor([masses], dtype=torch.float64)
    probabilities /= probabilities.sum()
    found = torch.zeros(len(masses), len(masses), dtype=torch.float64)
    patterns = list(itertools.product((-1.0, 1.0), repeat=len(masses)))
    for signs in patterns:
        directions = softmax_directions(probabilities, torch.tensor([signs]).double())
        assert len(directions) <= DIRECTIONS
        found += sum(each.T @ each for each in directions) / len(patterns)

    (row,) = probabilities
    torch.testing.assert_close(found, torch.diag(row) - torch.outer(row, row), atol=1e-9, rtol=0)


@pytest.mark.slow
@pytest.mark.sample
def test_the_order_is_nearly_that_of_the_measured_costs() -> None:
    network = fold_batch_norm(load_source(NetworkRequest("b0", resolution=SIDE)).network)
    table = calibrate(network, Smooth(40), PREPROCESSING, (ASYMMETRIC_UINT8,))
    part = table.quantization(ASYMMETRIC_UINT8.name).keeping(["stages.6.0.project.conv"])
    batches = torch.split(normalized(32, seed=1), 8)

    estimated = estimate_costs(network, part, batches)

    measured = {cost.name: cost.divergence for cost in sensitivity(network, part, batches)}
    assert estimated.keys() == measured.keys()
    ranked = spearmanr([estimated[name] for name in measured], list(measured.values()))
    assert ranked.statistic > 0.9
    ratios = np.array([estimated[name] / measured[name] for name in measured]) / 32
    assert 0.5 < np.median(ratios) < 2
