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
    has_linear_stream,
    has_scalable_depthwise_input,
    scale_logits,
    stream_readers,
)
from effnet_calibration.quantized import equalized
from effnet_calibration.schemes import ASYMMETRIC_UINT8, SYMMETRIC_INT8
from effnet_calibration.sites import blocks, is_expanded, layer, sites
from effnet_calibration.statistics import StatisticsCollector, TensorStatistics
from effnet_edge.model.variants import VARIANTS
from effnet_edge.parity.measures.metrics import sqnr_db

if TYPE_CHECKING:
    from effnet_calibration.schemes import QuantizationScheme
    from effnet_edge.model.network import EfficientNet

# Reordering float32 operations in untrained blocks leaves 75 dB and more; a wrong factor far less.
SAME = 65.0


def factors(channels: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.exp2(torch.randn(channels, generator=generator) * 2)


def octaves(channels: int, seed: int) -> torch.Tensor:
    """Powers of two, by which float32 is scaled exactly."""
    return torch.exp2(factors(channels, seed).log2().round())


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


STRUCTURES = ["b2", "b4", "lite0", "es", "v2-b0"]
LARGE = [name for name in VARIANTS if name not in {*STRUCTURES, "b0", "l2"}]


@pytest.mark.parametrize("variant", STRUCTURES)
def test_factors_and_centres_leave_every_kind_of_block_unchanged(variant: str) -> None:
    network = random_network(variant)
    changed = copy.deepcopy(network)
    for seed, (name, block) in enumerate(blocks(network)):
        if has_scalable_depthwise_input(name, block):
            channels = block.depthwise.conv.in_channels
            equalize_depthwise(changed, name, factors(channels, seed))
        if is_expanded(block):
            channels = block.project.conv.in_channels
            equalize_projection(changed, name, factors(channels, seed + 1), centre=0.5)
    assert_same(network, changed)


@pytest.mark.slow
@pytest.mark.parametrize("variant", LARGE)
def test_factors_leave_large_variants_unchanged(variant: str) -> None:
    network = random_network(variant)
    changed = copy.deepcopy(network)
    for seed, (name, block) in enumerate(blocks(network)):
        if has_scalable_depthwise_input(name, block):
            equalize_depthwise(changed, name, octaves(block.depthwise.conv.in_channels, seed))
        if is_expanded(block):
            equalize_projection(changed, name, octaves(block.project.conv.in_channels, seed + 1))
    for index in range(len(network.stages)):
        if has_linear_stream(network, index):
            channels = network.stages[index][0].project.conv.out_channels
            equalize_stream(changed, index, octaves(channels, index))
    # Deep untrained networks amplify any rounding: powers of two in float64 leave next to none.
    batch = normalized(4, seed=5).double()
    with torch.no_grad():
        assert sqnr_db(network.double()(batch), changed.double()(batch)) > SAME


@pytest.mark.parametrize(
    ("variant", "scheme"),
    [("lite0", SYMMETRIC_INT8), ("es", ASYMMETRIC_UINT8), ("v2-b0", SYMMETRIC_INT8)],
)
def test_what_is_chosen_for_other_blocks_leaves_the_float_output_unchanged(
    variant: str, scheme: QuantizationScheme
) -> None:
    network = random_network(variant)
    with StatisticsCollector(network) as collector:
        collector.run(normalized(8))
    grids = choose_grids(network, collector.statistics(), scheme)
    assert set(grids.tensors) == {site.name for site in sites(network)}
    assert grids.projection
    assert_same(network, equalized(network, grids))


def test_no_step_of_a_relu6_grid_lies_above_6() -> None:
    network = random_network("lite0")
    with StatisticsCollector(network) as collector:
        collector.run(normalized(8))
    grids = choose_grids(network, collector.statistics(), ASYMMETRIC_UINT8)
    for name, per_channel in grids.projection.items():
        entry = grids.tensors[f"{name}.project.conv"]
        top = entry.scale * (255 - entry.zero_point)
        # A grid's ends lie half a step, and its zero position some steps, off the range itself.
        assert top / max(per_channel) < 6.0 * 1.15, name


def test_a_stream_with_activations_on_it_is_not_equalized() -> None:
    network = random_network("v2-b0")
    assert [has_linear_stream(network, index) for index in range(3)] == [False, True, True]
