from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import PREPROCESSING, Smooth, normalized, random_network

from effnet_calibration.calibrate import Observed, observe, quantize
from effnet_calibration.equalization import (
    centre_projection,
    equalize_depthwise,
    equalize_projection,
    equalize_stream,
    scale_logits,
)
from effnet_calibration.errors import CalibrationError
from effnet_calibration.path import NetworkPath
from effnet_calibration.quantization import DEPTHWISE, PROJECTION, STREAM
from effnet_calibration.quantized import changed as changed_by
from effnet_calibration.schemes import ASYMMETRIC_UINT8, SYMMETRIC_INT8
from effnet_calibration.work import Settings
from effnet_edge.model.variants import VARIANTS
from effnet_edge.parity.measures.metrics import sqnr_db

if TYPE_CHECKING:
    from collections.abc import Callable

    from effnet_calibration.schemes import QuantizationScheme
    from effnet_edge.model.network import EfficientNet

UNCORRECTED = Settings(correct_biases=False)

pytestmark = pytest.mark.filterwarnings("ignore::effnet_calibration.errors.CalibrationWarning")

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


def scale_inputs(
    network: EfficientNet, per_channel: Callable[[int, int], torch.Tensor], centre: float = 0.0
) -> EfficientNet:
    """A copy with factors, and a centre, at every layer that can have them."""
    changed, path = copy.deepcopy(network), NetworkPath.of(network)
    for seed, layer in enumerate(path):
        if layer.source is None or layer.kind not in {"depthwise", "project"}:
            continue
        module = layer.module(network)
        if layer.kind == "depthwise":
            equalize_depthwise(changed, path, layer, per_channel(module.out_channels, seed))
        else:
            equalize_projection(changed, path, layer, per_channel(module.in_channels, seed))
            centre_projection(changed, path, layer, centre)
    return changed


def scale_stream(
    network: EfficientNet, path: NetworkPath, stage: int, per_channel: torch.Tensor
) -> None:
    equalize_stream(network, path, path.stream_projections(stage)[0], per_channel)


def test_depthwise_factors_leave_the_output_unchanged(network: EfficientNet) -> None:
    changed, path = copy.deepcopy(network), NetworkPath.of(network)
    assert len(path.of_kind("depthwise")) == 10
    for layer in path.of_kind("depthwise"):
        channels = layer.module(network).out_channels
        equalize_depthwise(changed, path, layer, factors(channels))
    assert_same(network, changed)


def test_projection_factors_leave_the_output_unchanged(network: EfficientNet) -> None:
    changed, path = copy.deepcopy(network), NetworkPath.of(network)
    assert len(path.of_kind("project")) == 10
    for layer in path.of_kind("project"):
        equalize_projection(changed, path, layer, factors(layer.module(network).in_channels))
    assert_same(network, changed)


@settings(deadline=None, max_examples=5)
@given(st.floats(-3, 3))
def test_a_centred_projection_leaves_the_output_unchanged(centre: float) -> None:
    network = random_network()
    changed = scale_inputs(network, lambda channels, _: torch.ones(channels), centre)
    assert_same(network, changed)


def test_a_centre_without_factors_is_refused(network: EfficientNet) -> None:
    path = NetworkPath.of(network)
    with pytest.raises(CalibrationError, match=r"centre of stages\.4\.0\.project\.conv"):
        centre_projection(copy.deepcopy(network), path, path["stages.4.0.project.conv"], 0.5)


@pytest.mark.parametrize("variant", ["b0", "b1"])
def test_stream_factors_leave_the_output_unchanged(variant: str) -> None:
    network = random_network(variant)
    changed, path = copy.deepcopy(network), NetworkPath.of(network)
    for stage in path.streams:
        channels = path.stream_projections(stage)[0].module(network).out_channels
        scale_stream(changed, path, stage, factors(channels, seed=stage))
    assert_same(network, changed)


def test_a_planted_wrong_factor_is_seen(network: EfficientNet) -> None:
    changed, path = copy.deepcopy(network), NetworkPath.of(network)
    layer = path["stages.3.1.depthwise.conv"]
    equalize_depthwise(changed, path, layer, factors(480))
    layer.module(changed).weight.data[7] *= 1.1
    with pytest.raises(AssertionError):
        assert_same(network, changed)


def test_scaled_logits_are_scaled(network: EfficientNet) -> None:
    changed, batch = copy.deepcopy(network), normalized(2)
    scale_logits(changed, 1.25)
    with torch.no_grad():
        torch.testing.assert_close(changed(batch), network(batch) * 1.25, rtol=1e-4, atol=1e-3)


def observed_of(variant: str) -> Observed:
    return observe(random_network(variant), Smooth(8), PREPROCESSING)


@pytest.fixture(scope="module")
def measured() -> Observed:
    return observed_of("b1")


@pytest.mark.sample
@pytest.mark.parametrize(
    "switched",
    [
        pytest.param(UNCORRECTED, id="default"),
        pytest.param(replace(UNCORRECTED, equalize_stream=True), id="all", marks=pytest.mark.slow),
        pytest.param(
            replace(UNCORRECTED, equalize_depthwise=False, equalize_projection=False),
            id="none",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_each_switch_leaves_the_float_output_unchanged(
    measured: Observed, switched: Settings
) -> None:
    quantization = quantize(measured, SYMMETRIC_INT8, switched)
    assert bool(quantization.changes(DEPTHWISE)) == switched.equalize_depthwise
    streams = quantization.changes(STREAM)
    assert len(streams) == (7 if switched.equalize_stream else switched.equalize_depthwise)
    assert_same(measured.network, changed_by(measured.network, quantization))


STRUCTURES = ["b2", "lite0", "es", "v2-b0"]
LARGE = [name for name in VARIANTS if name not in {*STRUCTURES, "b0", "l2"}]


@pytest.mark.parametrize("variant", STRUCTURES)
def test_factors_and_centres_leave_every_kind_of_block_unchanged(variant: str) -> None:
    network = random_network(variant)
    assert_same(network, scale_inputs(network, factors, centre=0.5))


@pytest.mark.slow
@pytest.mark.parametrize("variant", LARGE)
def test_factors_leave_large_variants_unchanged(variant: str) -> None:
    network = random_network(variant)
    changed, path = scale_inputs(network, octaves), NetworkPath.of(network)
    for stage in path.streams:
        if path.has_linear_stream(stage):
            channels = path.stream_projections(stage)[0].module(network).out_channels
            scale_stream(changed, path, stage, octaves(channels, stage))
    # Deep untrained networks amplify any rounding: powers of two in float64 leave next to none.
    batch = normalized(4, seed=5).double()
    with torch.no_grad():
        assert sqnr_db(network.double()(batch), changed.double()(batch)) > SAME


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "scheme"),
    [("lite0", SYMMETRIC_INT8), ("es", ASYMMETRIC_UINT8), ("v2-b0", SYMMETRIC_INT8)],
)
def test_what_is_chosen_for_other_blocks_leaves_the_float_output_unchanged(
    variant: str, scheme: QuantizationScheme
) -> None:
    observed = observed_of(variant)
    quantization = quantize(observed, scheme, UNCORRECTED)
    inputs = NetworkPath.of(observed.network).inputs
    assert set(quantization.grids) == {layer.name for layer in inputs}
    assert quantization.changes(PROJECTION)
    assert_same(observed.network, changed_by(observed.network, quantization))


@pytest.mark.slow
def test_no_step_of_a_relu6_grid_lies_above_6() -> None:
    quantization = quantize(observed_of("lite0"), ASYMMETRIC_UINT8, UNCORRECTED)
    projections = quantization.changes(PROJECTION)
    assert len(projections) == 16
    for name, per_channel in projections.items():
        grid = quantization.grids[name]
        top = grid.scale * (255 - grid.zero_point)
        # A grid's ends lie half a step, and its zero position some steps, off the range itself.
        assert top / max(per_channel) < 6.0 * 1.15, name  # type: ignore[arg-type]
