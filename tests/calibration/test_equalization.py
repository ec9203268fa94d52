from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import normalized, random_network

from effnet_calibration.calibrate import Settings, choose_grids
from effnet_calibration.equalization import (
    equalize_depthwise,
    equalize_projection,
    equalize_stream,
    has_scalable_depthwise_input,
    scale_logits,
    stream_readers,
)
from effnet_calibration.quantized import equalized
from effnet_calibration.schemes import SYMMETRIC_INT8
from effnet_calibration.sites import blocks, layer
from effnet_calibration.statistics import StatisticsCollector, TensorStatistics
from effnet_edge.parity.metrics import sqnr_db

if TYPE_CHECKING:
    from effnet_edge.model.network import EfficientNet

# Reordering float32 operations in untrained blocks leaves 75 dB and more; a wrong factor far less.
SAME = 65.0


def factors(channels: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.exp2(torch.randn(channels, generator=generator) * 2)


def assert_same(before: EfficientNet, after: EfficientNet) -> None:
    batch = normalized(4, seed=5)
    with torch.no_grad():
        assert sqnr_db(before(batch), after(batch)) > SAME


def test_depthwise_factors_leave_the_output_unchanged(network: EfficientNet) -> None:
    changed = copy.deepcopy(network)
    for name, block in blocks(network):
        equalize_depthwise(changed, name, factors(block.depthwise.conv.in_channels))
    assert_same(network, changed)


def test_projection_factors_leave_the_output_unchanged(network: EfficientNet) -> None:
    changed = copy.deepcopy(network)
    for name, block in blocks(network):
        equalize_projection(changed, name, factors(block.project.conv.in_channels))
    assert_same(network, changed)


@settings(deadline=None, max_examples=5)
@given(st.floats(-3, 3))
def test_a_centred_projection_leaves_the_output_unchanged(centre: float) -> None:
    network = random_network()
    changed = copy.deepcopy(network)
    for name, block in blocks(network):
        channels = block.project.conv.in_channels
        equalize_projection(changed, name, torch.ones(channels), centre)
    assert_same(network, changed)


@pytest.mark.parametrize("variant", ["b0", "b1"])
def test_stream_factors_leave_the_output_unchanged(variant: str) -> None:
    network = random_network(variant)
    changed = copy.deepcopy(network)
    for index in range(len(network.stages)):
        channels = layer(network, stream_readers(network, index)[0]).in_channels  # type: ignore[union-attr]
        equalize_stream(changed, index, factors(channels, seed=index))
    assert_same(network, changed)


def test_a_planted_wrong_factor_is_seen(network: EfficientNet) -> None:
    changed = copy.deepcopy(network)
    equalize_depthwise(changed, "stages.3.1", factors(480))
    layer(changed, "stages.3.1.depthwise.conv").weight.data[7] *= 1.1
    with pytest.raises(AssertionError):
        assert_same(network, changed)


def test_later_blocks_of_the_first_stage_read_the_stream() -> None:
    network = random_network("b1")
    unscalable = [
        name for name, block in blocks(network) if not has_scalable_depthwise_input(name, block)
    ]
    assert unscalable == ["stages.0.1"]
    assert stream_readers(network, 0) == ["stages.0.1.depthwise.conv", "stages.1.0.expand.conv"]


def test_the_last_stream_is_read_by_the_head(network: EfficientNet) -> None:
    assert stream_readers(network, 6) == ["head.conv"]


def test_scaled_logits_are_scaled(network: EfficientNet) -> None:
    changed, batch = copy.deepcopy(network), normalized(2)
    scale_logits(changed, 1.25)
    with torch.no_grad():
        torch.testing.assert_close(changed(batch), network(batch) * 1.25, rtol=1e-4, atol=1e-3)


@pytest.fixture(scope="module")
def measured() -> tuple[EfficientNet, dict[str, TensorStatistics]]:
    network = random_network("b1")
    with StatisticsCollector(network) as collector:
        collector.run(normalized(8))
    return network, collector.statistics()


@pytest.mark.parametrize(
    "switched",
    [
        Settings(),
        Settings(equalize_stream=True),
        Settings(equalize_depthwise=False, equalize_projection=False),
    ],
    ids=["default", "all", "none"],
)
def test_each_switch_leaves_the_float_output_unchanged(
    measured: tuple[EfficientNet, dict[str, TensorStatistics]], switched: Settings
) -> None:
    network, statistics = measured
    grids = choose_grids(network, statistics, SYMMETRIC_INT8, switched)
    assert bool(grids.depthwise) == switched.equalize_depthwise
    assert len(grids.stream) == (7 if switched.equalize_stream else switched.equalize_depthwise)
    assert_same(network, equalized(network, grids))
