"""Significance, sample size and calibration against scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.calibration import calibration_curve

from effnet_edge.parity.measures.statistics import (
    at_least,
    bootstrap_drop_interval,
    expected_calibration_error,
    images_to_tell,
    mcnemar_exact,
)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_binomial_test_of_scipy(lost: int, gained: int) -> None:
    right = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0

    assert mcnemar_exact(lost, gained) == pytest.approx(right, rel=1e-9)


@given(st.integers(0, 400), st.integers(0, 400), st.sampled_from([0.0, 0.001, 0.3, 0.97, 1.0]))
def test_how_likely_so_many_are_is_what_scipy_says(one: int, other: int, share: float) -> None:
    count, images = sorted((one, other))

    right = stats.binom.sf(count - 1, images, share)
    assert at_least(count, images, share) == pytest.approx(right, rel=1e-6, abs=1e-12)


def test_mcnemar_of_many_pictures_stays_a_number() -> None:
    assert mcnemar_exact(30_000, 30_100) == pytest.approx(
        stats.binomtest(30_000, 60_100).pvalue, rel=1e-6
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 2**16))
def test_the_bootstrap_is_that_of_scipy(lost: int, gained: int, seed: int) -> None:
    images = 200
    change = np.repeat([1.0, -1.0, 0.0], [lost, gained, images - lost - gained])
    right = stats.bootstrap(
        (change,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(seed)
    ).confidence_interval

    found = bootstrap_drop_interval(lost, gained, images)

    # A percentile of resampled means has an error of its own: two pictures of 200.
    np.testing.assert_allclose(found, (right.low, right.high), atol=2 / images)


@pytest.mark.parametrize(("drop", "discordant"), [(0.05, 0.12), (0.02, 0.05), (0.03, 0.06)])
def test_so_many_pictures_give_mcnemars_test_its_power(drop: float, discordant: float) -> None:
    images = images_to_tell(drop, discordant)
    shares = [(discordant + drop) / 2, (discordant - drop) / 2, 1 - discordant]
    draws = np.random.default_rng(0).multinomial(images, shares, 20_000)
    lost, gained = draws[:, 0], draws[:, 1]
    chi_squared = (lost - gained) ** 2 / np.maximum(lost + gained, 1)

    power = np.mean(chi_squared > stats.chi2.isf(0.05, 1))

    assert power == pytest.approx(0.8, abs=0.03)


def test_a_smaller_drop_takes_more_pictures() -> None:
    assert images_to_tell(0.005, 0.03) > 3 * images_to_tell(0.01, 0.03)


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_the_calibration_error_is_that_of_sklearns_curve(images: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    confidence = random.random(images)
    correct = random.random(images) < confidence**2
    accuracy, mean_confidence = calibration_curve(correct, confidence, n_bins=15)
    counts, _ = np.histogram(confidence, 15, (0, 1))
    right = np.sum(counts[counts > 0] / images * np.abs(accuracy - mean_confidence))

    assert expected_calibration_error(confidence, correct) == pytest.approx(right, abs=1e-12)


def test_a_sure_model_that_is_always_right_is_calibrated() -> None:
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0.0
    assert expected_calibration_error([1.0, 1.0], [True, False]) == 0.5
