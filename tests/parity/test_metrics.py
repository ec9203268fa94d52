from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from effnet_edge.parity.measures import metrics

LOGITS = st.floats(-50, 50, width=32)


@st.composite
def logit_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 12)))
    arrays = hnp.arrays(np.float32, shape, elements=LOGITS)
    return draw(arrays), draw(arrays)


def noisy_logits(seed: int, images: int = 40, classes: int = 30, noise: float = 0.7):
    rng = np.random.default_rng(seed)
    reference = rng.normal(0, 3, (images, classes)).astype(np.float32)
    return reference, reference + rng.normal(0, noise, reference.shape).astype(np.float32)


@given(logit_pairs())
def test_softmax_is_scipys(pair):
    np.testing.assert_allclose(
        metrics.softmax(pair[0]), scipy.special.softmax(pair[0].astype(float), axis=1), rtol=1e-12
    )
    np.testing.assert_allclose(
        metrics.log_softmax(pair[0]),
        scipy.special.log_softmax(pair[0].astype(float), axis=1),
        rtol=1e-10,
        atol=1e-12,
    )


def test_softmax_stays_finite_for_huge_logits():
    huge = np.array([[1e30, -1e30, 0.0]])
    np.testing.assert_array_equal(metrics.softmax(huge), [[1, 0, 0]])
    assert np.isfinite(metrics.log_softmax(huge)).all()


@given(logit_pairs())
def test_errors_are_sklearns(pair):
    reference, candidate = (array.ravel().astype(float) for array in pair)
    assert metrics.max_abs_error(*pair) == sklearn.metrics.max_error(reference, candidate)
    assert metrics.mean_abs_error(*pair) == pytest.approx(
        sklearn.metrics.mean_absolute_error(reference, candidate), rel=1e-12
    )


@given(logit_pairs())
def test_kl_is_scipys_entropy_of_the_two_softmaxes(pair):
    reference, candidate = (scipy.special.softmax(array.astype(float), axis=1) for array in pair)
    expected = scipy.stats.entropy(reference, candidate, axis=1).mean()
    assert metrics.kl_divergence(*pair) == pytest.approx(expected, rel=1e-7, abs=1e-12)
    assert metrics.kl_divergence(*pair) >= 0


def test_kl_stays_right_where_a_probability_underflows():
    # ln p − ln q = 2000 − 0 on the only class that has any mass.
    assert metrics.kl_divergence([[1000.0, -1000.0]], [[-1000.0, 1000.0]]) == pytest.approx(2000)


def test_kl_is_of_the_reference_against_the_candidate_and_not_the_reverse():
    sure, unsure = [[4.0, 0.0]], [[1.0, 0.0]]
    p, q = scipy.special.softmax(sure), scipy.special.softmax(unsure)
    assert metrics.kl_divergence(sure, unsure) == pytest.approx(scipy.special.rel_entr(p, q).sum())
    assert metrics.kl_divergence(unsure, sure) != pytest.approx(metrics.kl_divergence(sure, unsure))


@given(logit_pairs(), st.floats(-30, 30))
def test_kl_does_not_see_a_constant_added_to_all_logits(pair, shift):
    assert metrics.kl_divergence(pair[0], pair[1] + np.float64(shift)) == pytest.approx(
        metrics.kl_divergence(*pair), rel=1e-6, abs=1e-9
    )


def test_cosine_is_scipys():
    reference, candidate = noisy_logits(0)
    expected = 1 - scipy.spatial.distance.cosine(
        reference.ravel().astype(float), candidate.ravel().astype(float)
    )
    assert metrics.cosine(reference, candidate) == pytest.approx(expected, rel=1e-12)


def test_cosine_of_zeros():
    zeros, ones = np.zeros((2, 3)), np.ones((2, 3))
    assert metrics.cosine(zeros, zeros) == 1
    assert metrics.cosine(zeros, ones) == metrics.cosine(ones, zeros) == 0


def test_sqnr_of_a_uniform_quantizer_is_six_decibels_a_bit():
    # The textbook figure for a full-scale uniform signal: 20·log10(2) dB for every bit.
    signal = np.random.default_rng(1).uniform(-1, 1, 100_000)
    measured = []
    for bits in (6, 7, 8):
        step = 2 / 2**bits
        measured.append(metrics.sqnr_db(signal, (np.floor(signal / step) + 0.5) * step))
    np.testing.assert_allclose(measured, [6 * 6.0206, 7 * 6.0206, 8 * 6.0206], atol=0.1)


def test_sqnr_of_one_percent_noise_is_forty_decibels():
    reference = noisy_logits(2)[0].astype(float)
    assert metrics.sqnr_db(reference, 1.01 * reference) == pytest.approx(40)


def test_sqnr_at_the_ends_of_its_range():
    zeros, ones = np.zeros((2, 3)), np.ones((2, 3))
    assert metrics.sqnr_db(ones, ones) == math.inf
    assert metrics.sqnr_db(zeros, zeros) == math.inf
    assert metrics.sqnr_db(zeros, ones) == -math.inf


def test_relative_error_is_the_worst_error_over_the_range_of_the_reference():
    assert metrics.relative_error([[-2.0, 6.0]], [[-2.0, 5.0]]) == 1 / 8


def test_relative_error_of_a_constant_reference():
    assert metrics.relative_error([[3.0, 3.0]], [[3.0, 3.0]]) == 0
    assert metrics.relative_error([[3.0, 3.0]], [[3.0, 3.1]]) == math.inf


@given(logit_pairs(), st.floats(0.01, 100))
def test_relative_measures_do_not_see_the_scale(pair, scale):
    reference, candidate = (array.astype(float) for array in pair)
    for measure in (metrics.relative_error, metrics.cosine):
        assert measure(scale * reference, scale * candidate) == pytest.approx(
            measure(reference, candidate), rel=1e-6, abs=1e-9
        )


@given(logit_pairs())
def test_a_model_is_at_parity_with_itself(pair):
    same = pair[0]
    assert metrics.max_abs_error(same, same) == 0
    assert metrics.relative_error(same, same) == 0
    assert metrics.sqnr_db(same, same) == math.inf
    assert metrics.cosine(same, same) == pytest.approx(1)
    assert metrics.kl_divergence(same, same) == 0
    assert metrics.top1_agreement(same, same) == 1
    assert metrics.top5_agreement(same, same) == 1


def test_top1_agreement_is_sklearns_accuracy_against_the_reference():
    reference, candidate = noisy_logits(3)
    expected = sklearn.metrics.accuracy_score(reference.argmax(1), candidate.argmax(1))
    assert 0.5 < expected < 1
    assert metrics.top1_agreement(reference, candidate) == pytest.approx(expected)


def test_top5_agreement_is_the_mean_overlap_of_the_best_fives():
    reference, candidate = noisy_logits(4)
    overlaps = [
        len(np.intersect1d(np.argpartition(ref, -5)[-5:], np.argpartition(cand, -5)[-5:])) / 5
        for ref, cand in zip(reference, candidate, strict=True)
    ]
    assert 0.5 < np.mean(overlaps) < 1
    assert metrics.top5_agreement(reference, candidate) == pytest.approx(np.mean(overlaps))


def test_top5_agreement_counts_how_many_of_the_five_are_kept():
    reference = np.arange(10.0)[None]
    candidate = reference.copy()
    candidate[0, [0, 1]] = 20, 21  # pushes out classes 5 and 6
    assert metrics.top5_agreement(reference, candidate) == pytest.approx(3 / 5)


def test_of_equal_logits_the_lower_class_wins():
    assert metrics.top_k([[0.0, 7.0, 3.0, 7.0, 3.0]], 4).tolist() == [[1, 3, 2, 4]]
    assert metrics.top_k(np.zeros((2, 8)), 5).tolist() == [[0, 1, 2, 3, 4]] * 2


@given(hnp.arrays(np.float32, (3, 9), elements=st.sampled_from([-1, 0, 0.5, 2])))
def test_ranking_is_pythons_stable_sort(logits):
    expected = [sorted(range(9), key=lambda i, row=row: -row[i])[:5] for row in logits.tolist()]
    assert metrics.top_k(logits, 5).tolist() == expected


def test_fewer_than_five_classes_rank_as_many_as_there_are():
    assert metrics.top_k([[1.0, 2.0, 3.0]], 5).tolist() == [[2, 1, 0]]
    assert metrics.top5_agreement([[1.0, 2.0, 3.0]], [[3.0, 2.0, 1.0]]) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spoilt", ["reference", "candidate"])
def test_a_value_that_is_not_finite_shows_in_every_measure(bad, spoilt):
    good, other = noisy_logits(5)
    broken = (good if spoilt == "reference" else other).copy()
    broken[7, 3] = bad
    pair = (broken, other) if spoilt == "reference" else (good, broken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not math.isfinite(metrics.max_abs_error(*pair))
        assert not math.isfinite(metrics.mean_abs_error(*pair))
        assert not metrics.relative_error(*pair) <= 1e9
        assert not metrics.sqnr_db(*pair) >= -1e9
        assert not metrics.cosine(*pair) >= -1
        assert not metrics.top1_matches(*pair)[7]
        assert metrics.top5_overlap(*pair)[7] == 0
        assert metrics.finite_images(broken).sum() == len(broken) - 1
        if not (spoilt == "reference" and bad == -math.inf):
            assert not metrics.kl_divergence(*pair) <= 1e9


@pytest.mark.parametrize("spoilt", ["reference", "candidate"])
def test_a_model_that_answers_only_nan_agrees_with_nothing(spoilt):
    good = noisy_logits(6)[0]
    nothing = np.full_like(good, np.nan)
    pair = (nothing, good) if spoilt == "reference" else (good, nothing)
    assert metrics.top1_agreement(*pair) == 0
    assert metrics.top5_agreement(*pair) == 0
    assert metrics.top1_agreement(nothing, nothing) == 0
    assert math.isnan(metrics.kl_divergence(*pair))
    assert math.isnan(metrics.sqnr_db(*pair))


def test_tensors_of_any_shape_are_compared_whole():
    reference = np.random.default_rng(7).normal(size=(2, 3, 4, 5))
    candidate = reference + 0.01
    assert metrics.sqnr_db(reference, candidate) == metrics.sqnr_db(
        reference.reshape(6, 20), candidate.reshape(6, 20)
    )


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"reference is shaped \(2, 3\), candidate \(2, 4\)"):
        metrics.max_abs_error(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"must be shaped \(N, classes\)"):
        metrics.kl_divergence(np.zeros(3), np.zeros(3))
