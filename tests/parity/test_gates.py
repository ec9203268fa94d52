from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet_edge.errors import UsageError
from effnet_edge.parity import EXACT, AccuracyDrop, Comparison, Drop, Gate, ParityResult
from effnet_edge.parity.measures.gate_file import gate_of
from effnet_edge.parity.measures.gates import unfit_labels
from effnet_edge.parity.measures.table import BY_KEY, LIMITS

STRICT = Gate(
    max_relative_error=1e-3, min_agreement=0.988, min_sqnr_db=20, max_kl=0.02, max_drop=1.0
)


def result(**changes: object) -> ParityResult:
    drop = Drop(both_right=880, lost=9, gained=7, both_wrong=104)
    good = ParityResult(
        reference="b0-fp32",
        candidate="b0-int8",
        reference_precision="fp32",
        candidate_precision="int8",
        images=1000,
        classes=1000,
        values={
            "max_abs_error": 0.01,
            "mean_abs_error": 0.001,
            "relative_error": 5e-4,
            "sqnr_db": 25.0,
            "cosine": 0.999,
            "kl": 0.01,
            "top1_agreement": 0.99,
            "top5_agreement": 0.98,
        },
        reference_nonfinite=0,
        candidate_nonfinite=0,
        accuracy=AccuracyDrop(drop, drop),
        image_source="photos/",
    )
    measures = {key: changes.pop(key) for key in list(changes) if key in BY_KEY}
    return replace(good, values={**good.values, **measures}, **changes)


def dropping(lost: int) -> AccuracyDrop:
    drop = Drop(both_right=900 - lost, lost=lost, gained=0, both_wrong=100)
    return AccuracyDrop(drop, drop)


def test_a_good_candidate_passes_every_limit():
    assert STRICT.check(result()) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"relative_error": 0.0125}, "relative error 0.013 is above the 0.001 allowed"),
        ({"top1_agreement": 0.975}, "top-1 agreement 97.50 % is below the 98.80 % asked for"),
        ({"sqnr_db": 14.25}, "SQNR 14.25 dB is below the 20.00 dB asked for"),
        ({"kl": 0.13}, "KL divergence 0.13 nats is above the 0.02 nats allowed"),
        ({"accuracy": dropping(34)}, "top-1 drop 3.40 points is above the 1.00 points allowed"),
        ({"sqnr_db": -math.inf}, "SQNR −∞ dB is below the 20.00 dB asked for"),
        ({"relative_error": math.inf}, "relative error ∞ is above the 0.001 allowed"),
    ],
)
def test_each_broken_limit_is_one_line_that_says_by_how_much(change, line):
    assert STRICT.check(result(**change)) == [line]


def test_every_broken_limit_is_told():
    lines = STRICT.check(
        result(relative_error=1, top1_agreement=0, sqnr_db=0, kl=9, accuracy=dropping(500))
    )
    assert len(lines) == 5
    assert all("\n" not in line for line in lines)


def test_two_values_that_round_alike_are_told_with_more_digits():
    (line,) = Gate(min_agreement=0.988).check(result(top1_agreement=0.98799))
    assert line == "top-1 agreement 98.799 % is below the 98.800 % asked for"


@pytest.mark.parametrize("measure", ["relative_error", "top1_agreement", "sqnr_db", "kl"])
def test_a_measure_that_is_nan_fails(measure):
    (line,) = STRICT.check(result(**{measure: math.nan}))
    assert "is not a number" in line


@pytest.mark.parametrize("gate", [Gate(), Gate(min_agreement=0.5), EXACT, STRICT])
@pytest.mark.parametrize(
    ("side", "name"), [("reference_nonfinite", "b0-fp32"), ("candidate_nonfinite", "b0-int8")]
)
def test_nan_logits_fail_whatever_the_limits(gate, side, name):
    lines = gate.check(result(**{side: 3}, accuracy=dropping(0)))
    assert f"{name} gave NaN or infinite logits for 3 of 1000 pictures" in lines


def test_one_nan_image_in_a_hundred_does_not_hide_behind_the_agreement():
    logits = np.random.default_rng(0).normal(size=(100, 10)).astype(np.float32)
    broken = logits.copy()
    broken[40] = np.nan
    comparison = Comparison("a", "b", "fp32", "fp16")
    comparison.update(logits, broken)
    measured = comparison.result()
    assert measured.top1_agreement == 0.99
    assert Gate(min_agreement=0.98).check(measured) == [
        "b gave NaN or infinite logits for 1 of 100 pictures"
    ]


def test_a_limit_that_is_not_set_does_not_count():
    hopeless = result(relative_error=9, top1_agreement=0, sqnr_db=-9, kl=9, accuracy=dropping(800))
    assert Gate().check(hopeless) == []


def test_a_drop_limit_needs_labels():
    with pytest.raises(UsageError, match="on the top-1 drop needs labels, and photos/ have none"):
        Gate(max_drop=1).check(result(accuracy=None))
    assert Gate(max_kl=1).check(result(accuracy=None)) == []


def test_a_better_candidate_passes_a_drop_of_zero():
    drop = Drop(both_right=880, lost=2, gained=9, both_wrong=109)
    assert Gate(max_drop=0).check(result(accuracy=AccuracyDrop(drop, drop))) == []


def test_equal_logits_pass_any_limit():
    same = result(relative_error=0.0, top1_agreement=1.0, sqnr_db=math.inf, kl=0.0)
    assert Gate(max_relative_error=0, min_agreement=1, min_sqnr_db=300, max_kl=0).check(same) == []


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_value_on_its_limit_passes_and_one_beyond_fails(value, limit):
    assert bool(Gate(min_agreement=limit).check(result(top1_agreement=value))) == (value < limit)
    assert bool(Gate(max_kl=limit).check(result(kl=value))) == (value > limit)


@given(st.sampled_from([8, 50, 125, 1000, 50_000]), st.data())
def test_a_share_of_the_pictures_holds_the_percent_that_it_is_and_one_less_does_not(images, data):
    same = data.draw(st.integers(0, images))
    percent = round(100 * same / images, 6)  # exact, as all of them divide a power of ten
    gate = Gate(min_agreement=BY_KEY["top1_agreement"].stored(percent))
    assert gate.check(result(top1_agreement=same / images)) == []
    assert gate.check(result(top1_agreement=(same - 1) / images)) != []


@pytest.mark.parametrize(("images", "same", "percent"), [(1000, 999, 99.9), (500, 482, 96.4)])
def test_a_limit_in_percent_is_told_as_it_was_given(images, same, percent):
    gate = gate_of({"min-agreement": percent})
    assert gate.describe() == f"top-1 agreement ≥ {percent} %"
    (passed,) = gate.judge(result(top1_agreement=same / images)).checks
    assert str(passed) == f"top-1 agreement {percent:.2f} % ≥ {percent:.2f} %: passed"
    (below,) = gate.check(result(top1_agreement=(same / images) - 1e-9))
    assert below == f"top-1 agreement {percent - 1e-7:.7f} % is below the {percent:.7f} % asked for"


@given(st.floats(allow_nan=False, width=32))
def test_numbers_come_back_from_the_unit_that_is_shown(number):
    measure = BY_KEY["top1_agreement"]
    given_by_a_person = float(f"{number:.12g}")
    assert measure.shown(measure.stored(given_by_a_person)) == given_by_a_person


@pytest.mark.parametrize("field", LIMITS)
@pytest.mark.parametrize("limit", [-0.1, math.nan])
def test_a_limit_out_of_its_range_is_refused(field, limit):
    if field == "min_sqnr_db" and limit == -0.1:
        assert Gate(min_sqnr_db=limit).min_sqnr_db == limit
        return
    with pytest.raises(UsageError, match=rf"{field} must be between"):
        Gate(**{field: limit})


def test_agreement_in_percent_is_refused():
    with pytest.raises(UsageError, match=r"min_agreement must be between 0 and 1, not 98\.8"):
        Gate(min_agreement=98.8)


def test_a_gate_describes_itself_in_one_line():
    assert STRICT.describe() == (
        "relative error ≤ 0.001, top-1 agreement ≥ 98.8 %, SQNR ≥ 20 dB, KL divergence ≤ 0.02 nats,"
        " top-1 drop ≤ 1 point"
    )
    assert Gate().describe() == "finite logits"


def test_exact_lets_float_rounding_through_and_no_more():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (64, 100)).astype(np.float32)

    def broken_by(noise: float) -> list[str]:
        comparison = Comparison("torch", "onnx", "fp32", "fp32")
        comparison.update(logits, logits + rng.normal(0, noise, logits.shape))
        return EXACT.check(comparison.result())

    assert broken_by(1e-6) == []
    assert broken_by(0.3) != []


@pytest.mark.parametrize(
    ("right", "pictures", "classes", "is_worthless"),
    [
        (0, 40, 1000, True),
        (1, 40, 1000, True),
        (0, 7, 1000, True),
        (0, 4, 1000, False),
        (1, 1, 1000, False),
        (12, 40, 1000, False),
        (2, 40, 10, True),
        (12, 40, 10, False),
        (20, 40, 1, True),
        (0, 3, 1, False),
        (40, 40, 1, False),
        (50, 50_000, 1000, True),
        (100, 50_000, 1000, False),
    ],
)
def test_labels_that_the_reference_meets_by_chance_alone_tell_nothing_of_a_drop(
    right: int, pictures: int, classes: int, is_worthless: bool
) -> None:
    drop = Drop(right, 0, 0, pictures - right)
    found = result(accuracy=AccuracyDrop(drop, drop), classes=classes)

    told = unfit_labels(Gate(max_drop=1), found)

    assert unfit_labels(Gate(max_kl=1), found) == []
    assert bool(told) is is_worthless
    if is_worthless:
        assert f"b0-fp32 is right on {right} of {pictures} pictures, no more than by" in told[0]


@pytest.mark.parametrize("output", ["single-label", "multi-label", "features"])
def test_a_model_that_tells_no_picture_from_another_fails_whatever_the_limits(output: str) -> None:
    """Labels that are rarely given have nearly the same answers for all pictures."""
    exact = np.random.default_rng(0).normal(-6, 1, (16, 80))
    dead = np.repeat(exact.mean(0, keepdims=True), 16, 0)
    one_alike = exact.copy()
    one_alike[:, 3] = -9

    def broken_by(reference: np.ndarray, candidate: np.ndarray) -> list[str]:
        comparison = Comparison("torch", "openvino", "FP32", "INT8", output)
        for part in (slice(0, 8), slice(8, 16)):
            comparison.update(reference[part], candidate[part])
        return Gate(min_sqnr_db=10).check(comparison.result())

    assert broken_by(exact, dead) == ["openvino gives the same for all 16 pictures"]
    assert broken_by(exact, one_alike) == []
    assert broken_by(dead, dead) == []


@pytest.mark.parametrize(
    ("output", "outputs", "offset"),
    [
        ("single-label", 5, 0.0),
        ("single-label", 5, 1000.0),
        ("multi-label", 5, -6.0),
        ("multi-label", 1, -6.0),
        ("features", 5, 0.0),
    ],
)
def test_copies_of_one_picture_are_answered_alike(output: str, outputs: int, offset: float) -> None:
    """A reference rounds otherwise at another place of a batch, and an engine may not."""
    exact = np.random.default_rng(0).normal(offset, 3, (1, outputs)).repeat(4, 0)
    noise = np.random.default_rng(1).uniform(-4e-7, 4e-7, exact.shape)
    comparison = Comparison("torch", "openvino", "FP32", "INT8", output)
    comparison.update(exact * (1 + noise), exact)
    assert Gate(min_sqnr_db=10).check(comparison.result()) == []


def test_frames_that_hardly_differ_may_be_answered_alike() -> None:
    exact = np.random.default_rng(0).normal(0, 3, (1, 80)).repeat(8, 0)
    frames = exact + np.random.default_rng(1).uniform(-1e-3, 1e-3, exact.shape)
    comparison = Comparison("torch", "openvino", "FP32", "INT8")
    comparison.update(frames, exact)
    assert Gate(min_sqnr_db=10).check(comparison.result()) == []
