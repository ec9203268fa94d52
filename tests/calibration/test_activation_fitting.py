from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import PREPROCESSING, Smooth, normalized, random_network
from torch.nn import functional

from effnet_calibration.activation_fitting import PLAIN_SHARE, SHARE, sites
from effnet_calibration.calibrate import (
    calibrate,
    observe,
    quantize,
    read_pictures,
    tabulate,
)
from effnet_calibration.errors import CalibrationError
from effnet_calibration.fitted_activation import FittedActivation, HardSwishFit
from effnet_calibration.hard_swish_fit import Pairs, fit
from effnet_calibration.path import NetworkPath
from effnet_calibration.quantization import (
    ACTIVATIONS,
    DEPTHWISE,
    REFITTED,
    SLOPES,
    Quantization,
    from_columns,
    shortest,
    to_columns,
)
from effnet_calibration.quantized import apply, apply_quantization, changed
from effnet_calibration.schemes import (
    ASYMMETRIC_UINT8,
    FLOATING_POINT,
    SYMMETRIC_INT8,
    get_scheme,
)
from effnet_calibration.table import CalibrationTable
from effnet_calibration.work import Settings
from effnet_edge.parity.measures.metrics import sqnr_db

if TYPE_CHECKING:
    from effnet_calibration.path import Layer
    from effnet_calibration.schemes import QuantizationScheme
    from effnet_edge.model.network import EfficientNet

# Of a, b, c and d.
BOUNDS = ([1e-3, 0.125, -np.inf, -np.inf], [np.inf, 8, np.inf, np.inf])
FITTED = Settings(fitted_share=SHARE)

pytestmark = pytest.mark.filterwarnings("ignore::effnet_calibration.errors.CalibrationWarning")


def pairs(channels: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of widely different spread and mean, and what SiLU makes of them."""
    chance = torch.Generator().manual_seed(seed)
    spread = torch.exp2(torch.linspace(-3, 2, channels))[:, None]
    mean = torch.linspace(-3, 2, channels)[:, None]
    values = torch.randn(channels, 2048, generator=chance) * spread + mean
    return values, functional.silu(values)


def answers(
    numbers: HardSwishFit, values: torch.Tensor, slopes: torch.Tensor | None = None
) -> torch.Tensor:
    a, b, c, d = numbers.numbers.view(4, -1, 1)
    hard = functional.hardswish(b * values + c)
    if slopes is not None:
        hard = hard.clamp(min=0) + slopes[:, None] * hard.clamp(max=0)
    return a * hard + d


def numbers_for(network: EfficientNet, seed: int = 0) -> dict[str, tuple[float, ...]]:
    """Any numbers, for the first four layers that have an activation."""
    chance = torch.Generator().manual_seed(seed)
    found = {}
    for layer in sites(network, NetworkPath.of(network))[:4]:
        channels = len(layer.module(network).weight)
        a, b, c, d = torch.rand(4, channels, generator=chance)
        found[layer.name] = shortest(torch.cat([a + 0.5, b + 0.5, c - 0.5, d - 0.5]))
    return found


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_fit_finds_the_numbers_that_the_targets_were_made_by(seed: int) -> None:
    values, _ = pairs(seed=seed)
    a, b, c, d = torch.rand(4, len(values), generator=torch.Generator().manual_seed(seed))
    planted = HardSwishFit(a + 0.5, b + 0.5, c - 0.5, d - 0.5)
    targets = answers(planted, values)

    found = fit(Pairs.binned(values, targets)).numbers

    errors = (answers(found, values.double()) - targets).square().mean(1)
    assert bool((errors < 2e-2 * targets.var(1) + 2e-5).all())


def test_no_fit_of_scipy_is_closer() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    values, targets = pairs()
    plain, _ = fit(Pairs.binned(values, targets))
    ours = (answers(plain, values.double()) - targets).square().mean(1)
    bent, slopes = fit(Pairs.binned(values, targets), bent=True)
    ours_bent = (answers(bent, values.double(), slopes) - targets).square().mean(1)
    for channel, (x, y) in enumerate(zip(values.numpy(), targets.numpy(), strict=True)):

        def errors(numbers: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> np.ndarray:
            a, b, c, d, *slope = numbers
            inner = b * x + c
            hard = inner * np.clip(inner + 3, 0, 6) / 6
            return a * np.where(hard > 0, hard, hard * (slope[0] if slope else 1)) + d - y

        for own, slope, within in ((ours, (), 1e-5), (ours_bent, (1.0,), 2e-5)):
            bounds = tuple(
                [*each, *end][: 4 + len(slope)]
                for each, end in zip(BOUNDS, ([0], [4]), strict=True)
            )
            theirs = min(
                np.mean(
                    optimize.least_squares(errors, (1, 1, c, 0, *slope), bounds=bounds).fun ** 2
                )
                for c in (-1.0, 0.0, 1.0)
            )
            assert float(own[channel]) <= 1.05 * theirs + within, (channel, slope)
    # What the slope is for.
    assert float(ours_bent.sum()) < 0.8 * float(ours.sum())


def test_a_channel_without_spread_gets_finite_numbers() -> None:
    values = torch.zeros(2, 1024)
    for bent in (False, True):
        found, slopes = fit(Pairs.binned(values, functional.silu(values)), bent=bent)
        assert bool(torch.isfinite(torch.cat([found.numbers, slopes])).all())
        assert answers(found, torch.zeros(2, 1).double(), slopes).abs().max() < 1e-3


@pytest.mark.parametrize("slope", [None, 0.0, 0.6, 1.5])
def test_the_changed_network_computes_the_formula_before_any_padding(
    network: EfficientNet, slope: float | None
) -> None:
    numbers = numbers_for(network)
    decided = Quantization("none").changing(ACTIVATIONS, numbers)
    if slope is not None:
        decided = decided.changing(SLOPES, {"stem.conv": (slope,) * 32})
    fitted = changed(network, decided)
    seen: dict[str, torch.Tensor] = {}
    network = copy.deepcopy(network)  # The other tests' one is to have no hooks.
    for name in numbers:
        module = network.get_submodule(name)
        module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
    stem = next(iter(numbers))
    batch = normalized(2, seed=3)
    with torch.no_grad():
        network(batch)
        got = fitted.get_submodule("stem")(batch)
    read = HardSwishFit.of(numbers[stem])
    a, b, c, d = (each.float().view(1, -1, 1, 1) for each in (read.a, read.b, read.c, read.d))
    hard = functional.hardswish(b * seen[stem] + c)
    expected = a * torch.where(hard > 0, hard, hard * (1 if slope is None else slope)) + d
    assert sqnr_db(expected, got) > 100
    lowest = read.lowest(1.0 if slope is None else slope).view(1, -1, 1, 1)
    assert bool((got >= lowest - 1e-5).all())


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [ASYMMETRIC_UINT8, SYMMETRIC_INT8], ids=lambda each: each.name)
def test_equalization_leaves_a_fitted_network_as_it_is(
    network: EfficientNet, scheme: QuantizationScheme
) -> None:
    observed = observe(network, Smooth(8), PREPROCESSING)
    decided = quantize(observed, scheme, replace(FITTED, correct_biases=False, refit_weights=False))
    only_fitted = Quantization(scheme.name).changing(ACTIVATIONS, decided.changes(ACTIVATIONS))
    batch = normalized(4, seed=5)
    with torch.no_grad():
        plain, equalized = (changed(network, each)(batch) for each in (only_fitted, decided))
    assert sqnr_db(plain, equalized) > 65


@pytest.mark.slow
def test_the_large_maps_are_replaced_in_order_and_told_in_the_table(network: EfficientNet) -> None:
    table = calibrate(network, Smooth(12), PREPROCESSING, (ASYMMETRIC_UINT8,), settings=FITTED)
    replaced = table.quantization(ASYMMETRIC_UINT8.name).changes(ACTIVATIONS)
    path = NetworkPath.of(network)
    active = [layer.name for layer in path.main if layer.activation is not None]
    assert list(replaced) == active[: len(replaced)]
    assert 0 < len(replaced) < len(active)
    read = CalibrationTable.from_json(table.to_json())
    assert read == table
    quantized = apply(network, read, get_scheme(ASYMMETRIC_UINT8.name)).network
    fitted = {
        name for name, each in quantized.named_modules() if isinstance(each, FittedActivation)
    }
    assert fitted == {path[name].activation for name in replaced}


@pytest.mark.slow
def test_fitting_in_order_is_nearer_than_hard_swish_as_it_is(network: EfficientNet) -> None:
    observed = observe(network, Smooth(24), PREPROCESSING)
    replaced = quantize(observed, ASYMMETRIC_UINT8, FITTED).changes(ACTIVATIONS)
    naive = {
        name: (1.0,) * (len(each) // 4 * 2) + (0.0,) * (len(each) // 2)
        for name, each in replaced.items()
    }
    batch = normalized(8, seed=9)
    with torch.no_grad():
        expected = network(batch)
        fitted, plain = (
            sqnr_db(expected, changed(network, made)(batch))
            for made in (
                Quantization("none").changing(ACTIVATIONS, each) for each in (replaced, naive)
            )
        )
    assert fitted > plain + 3


@pytest.mark.parametrize(
    ("variant", "folded"), [("b0", {True}), ("v2-s", {True, False})], ids=["b0", "v2-s"]
)
def test_the_layers_behind_take_the_factors_where_nothing_is_rounded(
    variant: str, folded: set[bool]
) -> None:
    """A stem or a fused block of V2 gives what is a shortcut, too: its factors stay."""
    network = random_network(variant)
    numbers = numbers_for(network)
    batch = normalized(4)
    with torch.inference_mode():
        plain, taken = (
            changed(network, Quantization(name).changing(ACTIVATIONS, numbers))
            for name in ("none", FLOATING_POINT.name)
        )
        # Rounding grows through the 40 blocks of an untrained V2-S.
        assert sqnr_db(plain(batch).numpy(), taken(batch).numpy()) > 60
    activations = [each for each in taken.modules() if isinstance(each, FittedActivation)]
    assert len(activations) == 4
    assert {each.folded for each in activations} == folded
    assert all(bool((each.factors == 1).all()) == each.folded for each in activations)


def test_a_depthwise_convolution_in_16_bit_takes_the_factors_before_it(
    network: EfficientNet,
) -> None:
    """Whether it was equalized before it was kept, or not; others leave them to the activation."""
    path, pictures = NetworkPath.of(network), Smooth(32)
    observed = observe(network, pictures, PREPROCESSING)
    table = tabulate(observed, (ASYMMETRIC_UINT8,), FITTED)
    part = table.quantization(ASYMMETRIC_UINT8.name)
    assert part.changes(REFITTED)
    fitted = part.changes(ACTIVATIONS)
    depthwise = [layer for layer in path.of_kind("depthwise") if layer.source in fitted]
    kept, rounded = depthwise[1::2], depthwise[::2]
    part = part.keeping([layer.name for layer in kept])
    assert all(layer.name in part.changes(DEPTHWISE) for layer in kept)

    applied = apply(network, replace(table, quantizations={part.scheme: part}), ASYMMETRIC_UINT8)
    batch = normalized(4)
    with torch.inference_mode():
        assert sqnr_db(changed(network, part)(batch), applied.network(batch)) > 60

    def is_folded(layer: Layer) -> bool:
        before = path[layer.source or ""].activation or ""
        activation = applied.network.get_submodule(before)
        assert isinstance(activation, FittedActivation)
        assert activation.folded == bool((activation.factors == 1).all())
        return activation.folded

    assert {is_folded(layer) for layer in kept} == {True}
    assert {is_folded(layer) for layer in rounded} == {False}


def test_a_gate_takes_the_factors_of_the_map_that_it_multiplies(network: EfficientNet) -> None:
    """What reads the map is rounded and cannot; the mean and the gate are a number a channel."""
    path = NetworkPath.of(network)
    table = tabulate(observe(network, Smooth(32), PREPROCESSING), (ASYMMETRIC_UINT8,), FITTED)
    part = table.quantization(ASYMMETRIC_UINT8.name)
    gated = [path[name] for name in part.changes(ACTIVATIONS) if path[name].gate]
    assert gated

    as_decided, applied = apply_quantization(network, part), apply(network, table, ASYMMETRIC_UINT8)
    assert as_decided.inputs == applied.inputs
    batch = normalized(4)
    with torch.inference_mode():
        # Without the activations' roundings, where the last bit of a sum turns into a whole step.
        before, after = (each.with_rounded_weights()(batch) for each in (as_decided, applied))
        assert sqnr_db(before, after) > 100
    for layer in gated:
        activation = applied.network.get_submodule(layer.activation or "")
        assert isinstance(activation, FittedActivation)
        assert activation.folded


def test_without_integers_a_table_holds_the_fit_alone(network: EfficientNet) -> None:
    pictures = Smooth(8)
    few = Settings(fitted_share=0.2)
    table = tabulate(read_pictures(network, pictures, PREPROCESSING), (FLOATING_POINT,), few)

    fitted = table.quantization(FLOATING_POINT.name)
    assert table.ranges == {}
    assert set(fitted.changes(ACTIVATIONS)) == {
        layer.name for layer in sites(network, NetworkPath.of(network), 0.2)
    }
    assert fitted == Quantization(FLOATING_POINT.name).changing(
        ACTIVATIONS, fitted.changes(ACTIVATIONS)
    )
    # The same of pictures that a calibration for INT8 has looked at.
    observed = observe(network, pictures, PREPROCESSING)
    assert tabulate(observed, (FLOATING_POINT,), few) == table
    read = CalibrationTable.from_json(table.to_json())
    assert read == table

    applied = apply(network, read, FLOATING_POINT)
    assert applied.inputs == applied.weights == applied.outputs == {}
    assert applied.pixel_stem is None
    batch = normalized(4)
    with torch.inference_mode():
        exact, simulated = (each(batch) for each in (applied.network, applied.simulated()))
    assert sqnr_db(exact.numpy(), simulated.numpy()) > 100


def test_the_hard_swishes_of_the_later_maps_are_bent_and_told_in_the_table(
    network: EfficientNet,
) -> None:
    pictures, path = Smooth(8), NetworkPath.of(network)
    bending = Settings(fitted_share=SHARE, bend_activations=True)
    read = read_pictures(network, pictures, PREPROCESSING)
    plain, bent = (
        tabulate(read, (FLOATING_POINT,), each).quantization(FLOATING_POINT.name)
        for each in (FITTED, bending)
    )
    replaced = [layer.name for layer in sites(network, path, SHARE)]
    first = [layer.name for layer in sites(network, path, PLAIN_SHARE)]
    assert plain.changes(SLOPES) == {}
    assert set(bent.changes(ACTIVATIONS)) == set(replaced)
    assert set(bent.changes(SLOPES)) == set(replaced) - set(first)
    assert 0 < len(first) < len(replaced)
    assert from_columns(to_columns(bent)) == bent


def test_a_network_without_silu_keeps_its_activations() -> None:
    lite = random_network("lite0")
    assert sites(lite, NetworkPath.of(lite)) == []


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((1.0, 1.0, 0.0), "four numbers"),
        ((1.0, 0.0, 0.0, 0.0), "not above 0"),
        ((-1.0, 1.0, 0.0, 0.0), "not above 0"),
        ((1.0, 1.0, float("inf"), 0.0), "not above 0"),
        ((1.0, 1.0, 0.0, 0.0), "does not fit"),
    ],
)
def test_a_damaged_table_is_refused(
    network: EfficientNet, numbers: tuple[float, ...], says: str
) -> None:
    damaged = Quantization("none").changing(ACTIVATIONS, {"stem.conv": numbers})
    with pytest.raises(CalibrationError, match=says):
        changed(network, damaged)


@pytest.mark.parametrize(
    ("layer", "slopes", "says"),
    [
        ("stem.conv", (0.5,), "do not fit its activation"),
        ("stem.conv", (float("nan"),) * 32, "no number from 0 on"),
        ("stem.conv", (-0.5,) * 32, "no number from 0 on"),
        ("stages.4.1.project.conv", (0.5,) * 112, "do not fit its activation"),
        ("head.conv", (0.5,) * 1280, "do not fit its activation"),
    ],
)
def test_damaged_slopes_are_refused(
    network: EfficientNet, layer: str, slopes: tuple[float, ...], says: str
) -> None:
    decided = Quantization("none").changing(ACTIVATIONS, numbers_for(network))
    with pytest.raises(CalibrationError, match=says):
        changed(network, decided.changing(SLOPES, {layer: slopes}))
