"""Values of a regression: their measures against NumPy's, and faults that no other measure sees."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet_edge.errors import UsageError
from effnet_edge.parity import EXACT_GATES, Comparison, Gate, ParityResult
from effnet_edge.parity.batch_sizes import BatchSizeCheck
from effnet_edge.parity.measures import values as value_measures
from effnet_edge.parity.measures.value_answers import DifferenceCollector, ValueAnswers

OFFSETS = (0.0, 40.0, -2e6)
FAULTS = {
    "opposite sign": lambda values: -values,
    "offset": lambda values: values + 2,
    "scale": lambda values: values * 2,
    "constant": lambda values: np.full_like(values, values.mean()),
    "another picture's": lambda values: np.roll(values, 1, axis=0),
}


def pair(seed: int, images: int = 30, outputs: int = 3, noise: float = 0.1):
    """Each output has its own size and its own spread."""
    rng = np.random.default_rng(seed)
    spread = np.array([1.0, 100.0, 1e-3])[:outputs]
    offset = np.array(OFFSETS)[:outputs]
    reference = rng.normal(0, 1, (images, outputs))
    candidate = reference + rng.normal(0, noise, reference.shape)
    return reference * spread + offset, candidate * spread + offset


def compared(reference, candidate, labels=None, ends=(None,)) -> ParityResult:
    comparison = Comparison("torch", "engine", "FP32", "INT8", "regression")
    start = 0
    for end in ends:
        truth = None if labels is None else labels[start:end]
        comparison.update(reference[start:end], candidate[start:end], truth)
        start = end
    return comparison.result("pictures")


@settings(deadline=None)
@given(st.integers(0, 999), st.sets(st.integers(1, 29), max_size=4))
def test_the_measures_are_numpys_however_the_pictures_are_split(seed, cuts):
    reference, candidate = pair(seed)
    found = compared(reference, candidate, ends=(*sorted(cuts), 30))

    rmse = np.sqrt(np.mean((reference - candidate) ** 2, axis=0))
    # The spread of a thousandth beside two million has but so many digits in float64.
    assert found.nrmse == pytest.approx(np.max(rmse / reference.std(axis=0)), rel=1e-6)
    each = [np.corrcoef(reference[:, at], candidate[:, at])[0, 1] for at in range(3)]
    assert found.correlation == pytest.approx(min(each), rel=1e-6)
    assert found.max_abs_error == np.abs(reference - candidate).max()
    assert (found.cosine, found.kl, found.top1_agreement) == (None, None, None)
    expected = np.mean((rmse / reference.std(axis=0)) ** 2)
    assert value_measures.error_per_variance(reference, candidate) == pytest.approx(expected, 1e-6)


@settings(deadline=None)
@given(st.integers(0, 999), st.integers(1, 29))
def test_errors_from_the_truth_are_numpys(seed, cut):
    reference, candidate = pair(seed, noise=0.5)
    truth, _ = pair(seed + 1000)
    found = compared(reference, candidate, truth, (cut, 30))

    before, after = np.abs(reference - truth), np.abs(candidate - truth)
    grown = (after - before).mean(axis=0)
    document = found.to_dict()
    assert document["truth"]["reference_mae"] == pytest.approx(before.mean(axis=0))
    assert document["truth"]["candidate_mae"] == pytest.approx(after.mean(axis=0))
    assert found.mae_increase == pytest.approx(grown.max())
    low, high = document["intervals"]["mae_increase"]
    worst = (after - before)[:, grown.argmax()]
    assert high - low == pytest.approx(2 * 1.959964 * worst.std() / math.sqrt(30), rel=1e-4)
    assert Gate(max_mae_increase=max(grown.max(), 0) + 1e-9).check(found) == []
    assert Gate(max_mae_increase=0).check(found) or grown.max() <= 0


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("offset", OFFSETS)
def test_a_planted_fault_fails_the_gate_of_every_precision(fault, offset):
    rng = np.random.default_rng(1)
    reference = rng.normal(0, 1, (40, 1))
    wrecked = FAULTS[fault](reference)
    result = compared(reference + offset, wrecked + offset)
    assert result.nrmse > 0.9
    assert EXACT_GATES["regression"].check(result)
    assert Gate(max_nrmse=0.4).check(result)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_one_output_is_not_hidden_by_the_others(fault):
    reference, _ = pair(3)
    candidate = reference.copy()
    mean = reference[:, 2].mean()
    candidate[:, 2] = mean + 1e-3 * FAULTS[fault]((reference[:, 2] - mean) * 1e3)
    result = compared(reference, candidate)
    assert result.sqnr_db > 100
    assert Gate(max_nrmse=0.4).check(result)


def test_what_differs_in_the_last_bits_is_the_same():
    reference, _ = pair(4, outputs=2)
    rounded = reference.astype(np.float32).astype(np.float64)
    assert EXACT_GATES["regression"].check(compared(reference, rounded)) == []


def test_equal_constants_are_never_called_equal():
    dead = np.full((20, 1), 0.1)
    result = compared(dead, dead)
    assert math.isnan(result.nrmse)
    (line,) = Gate().check(result)
    assert "torch gives the same for all 20 pictures" in line
    assert len(EXACT_GATES["regression"].check(result)) == 2


def test_a_candidate_that_has_died_fails_without_any_limit():
    reference, _ = pair(5, outputs=1)
    result = compared(reference, np.full_like(reference, reference.mean()))
    (line,) = Gate().check(result)
    assert line == "engine gives the same for all 30 pictures"
    assert result.correlation == 0


def test_an_output_that_is_constant_in_both_is_left_out():
    reference, candidate = pair(6)
    reference[:, 1] = candidate[:, 1] = 7.3
    others = [0, 2]
    result = compared(reference, candidate)
    assert result.nrmse == pytest.approx(compared(reference[:, others], candidate[:, others]).nrmse)
    assert (result.reference_constant, result.candidate_constant) == ((1,), (1,))
    assert Gate().judge(result).passed is None
    candidate[3, 1] += 1e-3
    assert compared(reference, candidate).nrmse == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_passes_no_gate(bad):
    reference, candidate = pair(7)
    candidate[3, 1] = bad
    result = compared(reference, candidate)
    assert result.candidate_nonfinite == 1
    assert not result.nrmse < 1e9
    for gate in (Gate(), Gate(max_nrmse=1e9), Gate(max_error=1e9)):
        assert any("NaN or infinite values" in line for line in gate.check(result))


def test_a_single_picture_has_no_spread():
    reference, candidate = pair(8, images=1)
    result = compared(reference, reference)
    assert math.isnan(result.nrmse)
    assert Gate().judge(result).passed is None
    assert Gate(max_nrmse=1.0).check(result)
    assert compared(reference, candidate).nrmse == math.inf


@pytest.mark.parametrize("limit", ["max_kl", "min_agreement", "max_drop"])
def test_a_limit_on_classes_is_refused_and_what_there_is_is_offered(limit):
    with pytest.raises(UsageError, match="values have none: limit --max-nrmse"):
        Gate(**{limit: 0.5}).check(compared(*pair(9)))


def test_as_many_true_values_as_outputs_are_asked_for():
    reference, candidate = pair(10)
    with pytest.raises(UsageError, match="1 true values a picture for 3"):
        compared(reference, candidate, reference[:, 0])
    one = compared(reference[:, :1], candidate[:, :1], reference[:, 0])
    assert one.mae_increase == pytest.approx(np.abs(reference - candidate)[:, 0].mean())


def test_one_output_is_no_choice_of_a_class():
    comparison = Comparison("torch", "engine", "FP32", "INT8")
    with pytest.raises(UsageError, match="--multi-label .*--regression"):
        comparison.update([[1.0]], [[-1.0]])


def test_a_yes_or_no_of_the_opposite_sign_is_another_answer():
    logits = np.random.default_rng(11).normal(0, 3, (30, 1))
    labels = (logits[:, 0] > 0).astype(int)
    comparison = Comparison("torch", "engine", "FP32", "INT8", "multi-label")
    comparison.update(logits, -logits, labels)
    result = comparison.result("pictures")
    assert result.agreement == 0
    assert (result.accuracy.top1.reference, result.accuracy.top1.candidate) == (100, 0)
    assert result.top1_drop == 100
    assert "top5" not in result.to_dict()["accuracy"]
    assert "accuracy drop 100.00 points" in Gate(max_drop=1.0).check(result)[0]
    with pytest.raises(UsageError, match="label 2 is outside the model's 2 classes"):
        comparison.update(logits, logits, labels + 1)


@given(st.integers(0, 99), st.integers(1, 29))
@settings(deadline=None)
def test_the_largest_differences_are_those_of_all_pictures(seed, cut):
    reference, candidate = pair(seed)
    collector = DifferenceCollector()
    pixels = np.zeros((30, 4, 4, 3), np.uint8)
    for part in (slice(cut), slice(cut, None)):
        collector.add(pixels[part], ValueAnswers(reference[part], candidate[part], reference[part]))
    shares = (np.abs(reference - candidate) / reference.std(axis=0)).max(axis=1)
    found = collector.differences()
    assert len(found) == 12
    # The first batches are ranked by the spread of their own pictures.
    assert found[0].share > np.sort(shares)[-4]
    for each in found:
        assert each.share == pytest.approx(shares[each.picture], rel=1e-6)
        assert (each.reference, each.truth) == (reference[each.picture, each.output],) * 2


class _AtOneSize:
    """Answers rightly but for one batch size."""

    name, execution_precision = "engine", "FP32"

    def __init__(self, wrong: int) -> None:
        self._wrong = wrong

    def infer(self, batch: np.ndarray) -> np.ndarray:
        values = batch[:, :1, 0, 0].astype(np.float32)
        return 2000 + (values.max() - values if len(batch) == self._wrong else values)


def test_another_answer_at_one_batch_size_is_not_hidden_by_an_offset():
    pixels = np.arange(16, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    expected = 2000 + pixels[:, :1, 0, 0].astype(np.float32)
    check = BatchSizeCheck(pixels, expected, "regression")
    found = check.run(_AtOneSize(4), (1, 3, 4, 8), 15.0)
    assert [bool(each.failures) for each in found] == [False, False, True, False]
