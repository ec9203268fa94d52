from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet_calibration.schemes import (
    ASYMMETRIC_UINT8,
    SCHEMES,
    SYMMETRIC_INT8,
    QuantizationScheme,
)
from effnet_calibration.selection import Reader, TensorChoice, choose
from effnet_calibration.statistics import ChannelStatistics, TensorStatistics


def folds_of(values: torch.Tensor) -> TensorStatistics:
    folds = []
    for part in (values[0::2], values[1::2]):
        statistics = ChannelStatistics.empty(values.shape[1])
        if len(part):
            statistics.add(part)
        folds.append(statistics)
    return TensorStatistics(tuple(folds))


def uneven(seed: int = 0, channels: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp2(torch.arange(channels).float() - channels / 2)
    values = torch.randn(4000, channels, generator=generator) * spread
    return torch.nn.functional.silu(values)


def error(choice: TensorChoice, values: torch.Tensor) -> torch.Tensor:
    scaled = choice.grid.fake_quantize(values * choice.factors) / choice.factors
    return (scaled - values).square().mean(0)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=str)
def test_the_expected_noise_is_the_noise_of_new_values(scheme) -> None:  # type: ignore[no-untyped-def]
    choice = choose(folds_of(uneven()), scheme, Reader(torch.ones(8)), equalize=True)
    measured = float(error(choice, uneven(seed=1)).sum())
    assert choice.noise == pytest.approx(measured, rel=0.35)


def test_equalization_helps_the_channels_that_reach_least() -> None:
    statistics, reader = folds_of(uneven()), Reader(1 / uneven().square().mean(0))
    plain = choose(statistics, SYMMETRIC_INT8, reader, equalize=False)
    equalized = choose(statistics, SYMMETRIC_INT8, reader, equalize=True)
    assert torch.equal(plain.factors, torch.ones(8))
    assert float(error(equalized, uneven())[0]) < float(error(plain, uneven())[0]) / 100
    assert equalized.snr_db > plain.snr_db + 10


def test_a_peak_in_one_half_only_is_given_room() -> None:
    values = torch.rand(1000, 1)
    values[1] = 2.0
    choice = choose(folds_of(values), ASYMMETRIC_UINT8, Reader(torch.ones(1)), equalize=False)
    reach = (choice.grid.maximum - choice.grid.zero_point) * choice.grid.scale
    assert 1.9 < reach < 4.1


def test_a_free_zero_lets_a_symmetric_grid_use_all_its_steps() -> None:
    values = torch.rand(1000, 3)
    bound = choose(folds_of(values), SYMMETRIC_INT8, Reader(torch.ones(3)), equalize=True)
    free = choose(
        folds_of(values), SYMMETRIC_INT8, Reader(torch.ones(3), zero_is_free=True), equalize=True
    )
    assert bound.grid.zero_point == 0
    assert free.noise < bound.noise / 3


@pytest.mark.parametrize("scheme", [ASYMMETRIC_UINT8, SYMMETRIC_INT8], ids=str)
def test_a_zero_in_the_middle_has_as_many_integers_on_either_side(
    scheme: QuantizationScheme,
) -> None:
    # Values that reach three times as far above 0 as below would have it elsewhere.
    statistics = folds_of(torch.rand(1000, 3) * 4 - 1)
    placed = choose(statistics, ASYMMETRIC_UINT8, Reader(torch.ones(3)), equalize=False)
    middle = choose(statistics, scheme, Reader(torch.ones(3), zero_in_middle=True), equalize=False)
    assert placed.grid.zero_point < 96
    zero, least, most = (
        getattr(middle.grid, each) for each in ("zero_point", "minimum", "maximum")
    )
    assert zero - least == most - zero + 1 == 128
    assert zero == scheme.middle


def test_coarser_weights_hold_the_factors_back() -> None:
    values, weight = uneven(), torch.ones(4, 8)
    free = choose(folds_of(values), ASYMMETRIC_UINT8, Reader(torch.ones(8)), equalize=True)
    held = choose(
        folds_of(values), ASYMMETRIC_UINT8, Reader(torch.ones(8), weight=weight), equalize=True
    )
    assert float(held.factors.max() / held.factors.min()) < float(
        free.factors.max() / free.factors.min()
    )


@settings(deadline=None, max_examples=15)
@given(
    st.sampled_from(list(SCHEMES.values())),
    st.lists(st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e4]), min_size=1, max_size=6),
    st.booleans(),
    st.booleans(),
)
def test_dead_and_tiny_channels_give_finite_factors(  # type: ignore[no-untyped-def]
    scheme, spreads: list[float], equalize: bool, negative: bool
) -> None:
    values = torch.rand(50, len(spreads)) * torch.tensor(spreads) * (-1 if negative else 1)
    choice = choose(folds_of(values), scheme, Reader(torch.ones(len(spreads))), equalize=equalize)
    assert bool(torch.isfinite(choice.factors).all())
    assert bool((choice.factors > 0).all())
    assert 0 < choice.grid.scale < float("inf")
    assert bool(torch.isfinite(error(choice, values)).all())


def test_a_range_is_judged_on_the_pictures_that_it_was_not_chosen_on() -> None:
    values = torch.rand(1000, 1, generator=torch.Generator().manual_seed(0))
    values[1::2] *= 2
    choice = choose(folds_of(values), ASYMMETRIC_UINT8, Reader(torch.ones(1)), equalize=True)
    reach = choice.grid.maximum * choice.grid.scale / choice.factors
    assert choice.rule == "min-max × 2"
    assert float(reach) == pytest.approx(4, rel=0.01)


def test_a_single_picture_is_judged_by_itself() -> None:
    picture = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    once, twice = (
        choose(folds_of(each), ASYMMETRIC_UINT8, Reader(torch.ones(3)), equalize=True)
        for each in (picture, torch.cat([picture, picture]))
    )
    assert (once.grid, once.rule) == (twice.grid, twice.rule)
    assert torch.equal(once.factors, twice.factors)
    assert once.noise == pytest.approx(twice.noise)
