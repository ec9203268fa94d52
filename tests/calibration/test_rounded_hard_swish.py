"""Hard-swishes for engines that round every output: the errors they promise are those they make."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import PREPROCESSING, Smooth, normalized, random_network
from torch import nn
from torch.nn import functional

from effnet_calibration import output_grids
from effnet_calibration.calibrate import observe, quantize
from effnet_calibration.equalized_activation import EQUALIZED, SATURATION
from effnet_calibration.errors import CalibrationError
from effnet_calibration.path import NetworkPath
from effnet_calibration.quantization import (
    BIASES,
    INTEGER_WEIGHTS,
    Quantization,
    from_columns,
    to_columns,
)
from effnet_calibration.quantized import apply_quantization, changed
from effnet_calibration.rounded_hard_swish import (
    HARD_SWISHES,
    RoundedHardSwish,
    fit_rounded,
    replace_by_hard_swish,
)
from effnet_calibration.rounded_outputs import HARD_GATE_SCALE
from effnet_calibration.schemes import ASYMMETRIC_INT8_OUTPUTS
from effnet_calibration.statistics import ChannelStatistics
from effnet_calibration.work import Settings
from effnet_edge.parity.measures.metrics import sqnr_db

if TYPE_CHECKING:
    from effnet_edge.model.network import EfficientNet

pytestmark = pytest.mark.filterwarnings("ignore::effnet_calibration.errors.CalibrationWarning")

SCHEME = ASYMMETRIC_INT8_OUTPUTS
SAME = 65.0


def normal(deviations: list[float], seed: int = 0) -> torch.Tensor:
    """Values of channels of these widths, float32 (4, C, 24, 24)."""
    chance = torch.Generator().manual_seed(seed)
    wide = torch.tensor(deviations).view(1, -1, 1, 1)
    return torch.randn(4, len(deviations), 24, 24, generator=chance) * wide - wide / 4


def statistics(values: torch.Tensor) -> ChannelStatistics:
    seen = ChannelStatistics.empty(values.shape[1])
    seen.add(values.clamp(min=-5.0))
    return seen


def rounded_answer(
    values: torch.Tensor, fit: RoundedHardSwish, scale: float, zero: int
) -> torch.Tensor:
    """What integers make of it, one operator after the other."""
    a, b, c = (each.float().view(1, -1, 1, 1) for each in (fit.a, fit.b, fit.c))
    y = SCHEME.on_grid(scale, zero).fake_quantize(values * b + c)
    gate = SCHEME.on_grid(HARD_GATE_SCALE, -128).fake_quantize(y + 3)
    lowest, highest = -2.25, 6 * scale * (127 - zero)
    step = (highest - lowest) / 255
    product = SCHEME.on_grid(step, -128 - round(lowest / step)).fake_quantize(y * gate)
    return product * a / 6


@settings(deadline=None, max_examples=10)
@given(st.lists(st.floats(0.3, 12), min_size=2, max_size=6), st.integers(0, 99))
def test_what_is_promised_is_what_integers_make(widths: list[float], seed: int) -> None:
    values = normal(widths, seed)
    found = fit_rounded(statistics(values), SCHEME, torch.ones(len(widths)))
    exact = functional.silu(values)
    error = rounded_answer(values, found.fit, found.grid.scale, found.grid.zero_point) - exact
    variance = exact.transpose(0, 1).flatten(1).var(1).sum()
    noise = error.square().mean((0, 2, 3)).sum()
    measured = 10 * math.log10(float(variance / noise))
    assert found.snr_db == pytest.approx(measured, abs=2.0)
    assert found.snr_db > 15


def test_wide_channels_get_smaller_factors_and_narrow_ones_all_of_the_grid() -> None:
    found = fit_rounded(statistics(normal([0.5, 2.0, 12.0])), SCHEME, torch.ones(3))
    b = found.fit.b.tolist()
    assert b[2] < b[1] <= b[0]
    assert b[2] < 0.8


def test_the_energy_decides_for_whom_the_grid_is() -> None:
    seen = statistics(normal([0.5, 12.0]))
    narrow, wide = (fit_rounded(seen, SCHEME, torch.tensor(each)) for each in ((1e3, 1), (1, 1e3)))
    assert narrow.grid.scale <= wide.grid.scale


def test_a_channel_that_says_nothing_is_still_a_silu() -> None:
    values = torch.cat([normal([2.0]), torch.full((4, 1, 24, 24), -5.0)], 1)
    fit = fit_rounded(statistics(values), SCHEME, torch.ones(2)).fit
    x = torch.linspace(-5, 5, 50)
    answers = fit.a[1] * functional.hardswish(fit.b[1] * x + fit.c[1])
    assert (answers - functional.silu(x)).abs().max() < 0.8


class Direct(nn.Module):
    """a · HardSwish(b · x + c), as the formula has it."""

    def __init__(self, fit: RoundedHardSwish) -> None:
        super().__init__()
        self.fit = fit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c = (each.float().view(1, -1, 1, 1) for each in (self.fit.a, self.fit.b, self.fit.c))
        return a * functional.hardswish(b * x + c)


def some_fit(channels: int) -> RoundedHardSwish:
    chance = torch.Generator().manual_seed(1)
    a, b, c = torch.rand(3, channels, generator=chance, dtype=torch.float64)
    return RoundedHardSwish(a + 0.5, b + 0.5, c - 0.5)


def logits(network: EfficientNet) -> torch.Tensor:
    with torch.no_grad():
        return network(normalized(8, seed=5))


@pytest.mark.parametrize(
    "name", ["stem.conv", "stages.1.0.expand.conv", "stages.1.0.depthwise.conv"]
)
def test_the_network_around_it_computes_the_formula(name: str) -> None:
    network = random_network("b0")
    path = NetworkPath.of(network)
    layer = path[name]
    fit = some_fit(len(layer.module(network).weight))
    expected, made = copy.deepcopy(network), copy.deepcopy(network)
    assert layer.activation is not None
    expected.set_submodule(layer.activation, Direct(fit))
    replace_by_hard_swish(made, path, layer, tuple(fit.numbers.tolist()))
    assert sqnr_db(logits(expected), logits(made)) > SAME
    planted = copy.deepcopy(network)
    wrong = RoundedHardSwish(fit.a, fit.b, fit.c + 0.05)
    replace_by_hard_swish(planted, path, layer, tuple(wrong.numbers.tolist()))
    assert sqnr_db(logits(expected), logits(planted)) < SAME - 10


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ((1.0, 2.0), "three numbers a channel"),
        ((1.0, 0.0, 0.5), "not above 0"),
        ((math.nan, 1.0, 0.5), "not above 0"),
        ((1.0, 1.0, 0.5), r"hard-swish of stem\.conv does not fit"),
    ],
)
def test_what_does_not_fit_is_refused(numbers: tuple[float, ...], told: str) -> None:
    network = random_network("b0")
    damaged = Quantization("none").changing(HARD_SWISHES, {"stem.conv": numbers})
    with pytest.raises(CalibrationError, match=told):
        changed(network, damaged)


@pytest.fixture(scope="module")
def decided() -> tuple[EfficientNet, Quantization]:
    network = random_network("b0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output_grids, "HARD_SWISH_DB", -100.0)
        patch.setattr(output_grids, "HARD_SWISH_SHARE", 0.01)
        patch.setattr(output_grids, "FAST_PLAIN_DB", output_grids.PLAIN_DB)
        observed = observe(network, Smooth(16), PREPROCESSING)
        return network, quantize(observed, SCHEME, Settings(fitted_share=0.9))


def test_the_widest_maps_get_one_instead_of_factors(
    decided: tuple[EfficientNet, Quantization],
) -> None:
    network, quantization = decided
    replaced = quantization.changes(HARD_SWISHES)
    assert replaced
    assert not replaced.keys() & {
        *quantization.changes(EQUALIZED),
        *quantization.changes(SATURATION),
    }
    outputs = apply_quantization(network, quantization).outputs
    for name in replaced:
        activation = NetworkPath.of(network)[name].activation
        assert (outputs[f"{activation}.gate"].scale, outputs[f"{activation}.gate"].zero_point) == (
            HARD_GATE_SCALE,
            -128,
        )
        grid = outputs[name]
        assert -3.1 < (grid.minimum - grid.zero_point) * grid.scale <= -2.99
    assert from_columns(to_columns(quantization)) == quantization


def test_where_time_is_asked_for_fewer_tensors_get_factors() -> None:
    network = random_network("b0")
    observed = observe(network, Smooth(16), PREPROCESSING)
    uncorrected = Settings(correct_biases=False, refit_weights=False)
    exact, fast = (
        quantize(observed, SCHEME, replace(uncorrected, fitted_share=share)) for share in (0, 0.65)
    )
    with_factors = [
        {name for name, factors in each.changes(EQUALIZED).items() if set(factors) != {1.0}}
        for each in (exact, fast)
    ]
    assert with_factors[1] < with_factors[0]


def test_the_last_two_layers_have_integer_weights_and_nothing_else_of_them(
    decided: tuple[EfficientNet, Quantization],
) -> None:
    network, quantization = decided
    last = {NetworkPath.of(network).last_projection().name, "classifier"}
    assert quantization.changes(INTEGER_WEIGHTS) == dict.fromkeys(last, 127.0)
    made = apply_quantization(network, quantization)
    without = apply_quantization(network, quantization.changing(INTEGER_WEIGHTS, {}))
    assert made.weights.keys() - without.weights.keys() == last
    assert made.outputs.keys() == without.outputs.keys()
    for name in last:
        exact = without.network.get_submodule(name).weight
        steps = (made.weights[name].dequantized() - exact).abs().flatten(1).amax(1)
        assert (steps <= 0.51 * made.weights[name].scales).all()


def test_unless_time_is_asked_for_nothing_of_it_is_made() -> None:
    network = random_network("b0")
    quantization = quantize(observe(network, Smooth(16), PREPROCESSING), SCHEME)
    assert not quantization.changes(HARD_SWISHES)
    assert not quantization.changes(INTEGER_WEIGHTS)


def test_biases_are_corrected_for_it(decided: tuple[EfficientNet, Quantization]) -> None:
    network, quantization = decided
    for name in quantization.changes(HARD_SWISHES):
        added = torch.tensor(quantization.changes(BIASES)[name])
        fit = RoundedHardSwish.of(quantization.changes(HARD_SWISHES)[name])
        # Of what is not c, which is no error.
        assert added.abs().mean() < 0.2 * fit.b.max()
    simulated = apply_quantization(network, quantization).simulated()
    assert sqnr_db(logits(network), logits(simulated)) > 0.0
