"""A model that is wrong at one batch size only, and the check that must find it there."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet_edge.bundle import BatchRange
from effnet_edge.errors import BackendError
from effnet_edge.parity import Gate
from effnet_edge.parity.batch_sizes import (
    OWN_ANSWERS_DB,
    AtBatchSize,
    BatchSizeCheck,
    _is_wrong,
    _quantile,
    graph_sizes,
    range_of_file,
)
from effnet_edge.parity.comparison import Comparison
from effnet_edge.parity.measures.few_pictures import broken_limits

PICTURES, CLASSES = 6, 10
PIXELS = np.random.default_rng(0).integers(0, 256, (PICTURES, 4, 4, 3), np.uint8)

ranges = st.tuples(st.integers(1, 40), st.integers(0, 40), st.integers(0, 40)).map(
    lambda each: BatchRange(each[0], each[0] + each[1], each[0] + each[1] + each[2])
)


def right(pixels: np.ndarray) -> np.ndarray:
    values = pixels.reshape(len(pixels), -1).astype(np.float32)
    return np.sin(values[:, :CLASSES]).astype(np.float32) * 4


class Model:
    name, execution_precision = "model", "INT8"

    def __init__(self, change=lambda answers: answers, only_at: int | None = None) -> None:
        self._change = change
        self._only_at = only_at
        self.sizes: list[int] = []

    def infer(self, batch: np.ndarray, /) -> np.ndarray:
        self.sizes.append(len(batch))
        answers = right(batch)
        return self._change(answers) if self._only_at in (None, len(batch)) else answers


def run(model: Model, sizes: tuple[int, ...], gate: Gate | None = None) -> list[AtBatchSize]:
    return BatchSizeCheck(PIXELS, right(PIXELS)).run(model, sizes, 15.0, gate)


def wrong_last_row(answers: np.ndarray) -> np.ndarray:
    return np.concatenate([answers[:-1], answers[-1:, ::-1]])


@given(batch=ranges)
def test_the_sizes_are_the_ends_the_optimum_odd_ones_one_image_and_one_beyond(
    batch: BatchRange,
) -> None:
    sizes = batch.sizes_to_check

    assert {1, batch.minimum, batch.optimum, batch.maximum, batch.maximum + 1} <= set(sizes)
    assert list(sizes) == sorted(set(sizes))
    if batch.maximum - batch.minimum >= 2 and batch.minimum < 8:
        assert any(size % 2 and batch.minimum <= size <= batch.maximum for size in sizes)
    assert len(sizes) <= 9


def test_the_sizes_of_common_requests() -> None:
    assert BatchRange(1, 8, 32).sizes_to_check == (1, 3, 5, 7, 8, 31, 32, 33)
    assert BatchRange(1, 1, 1).sizes_to_check == (1, 2)
    assert BatchRange(4, 4, 4).sizes_to_check == (1, 4, 5)
    assert BatchRange(2, 4, 6).sizes_to_check == (1, 2, 3, 4, 5, 6, 7)


@given(batch=ranges)
def test_a_graph_with_a_dynamic_batch_is_run_at_more_than_one_size_in_its_range(
    batch: BatchRange,
) -> None:
    sizes = graph_sizes(batch)

    assert all(batch.minimum <= size <= batch.maximum for size in sizes)
    assert (len(sizes) > 1) == (batch.minimum < batch.maximum)


def test_a_file_that_leaves_its_batch_open_is_run_at_usual_sizes() -> None:
    assert range_of_file(1, None) == BatchRange(1, 8, 8)
    assert range_of_file(2, 32) == BatchRange(2, 8, 32)
    assert range_of_file(4, 4) == BatchRange(4, 4, 4)
    assert range_of_file(16, None) == BatchRange(16, 16, 16)


def test_a_model_that_is_the_same_at_all_sizes_passes_with_its_figures() -> None:
    sizes = (1, 3, 8, 9)
    model = Model(lambda answers: answers * np.float32(0.99))

    found = run(model, sizes, Gate(min_sqnr_db=20.0))

    assert [each.size for each in found] == list(sizes)
    assert [each.failures for each in found] == [()] * 4
    assert found[0].sqnr_db == pytest.approx(40.0, abs=0.01)
    assert all(each.worst_sqnr_db == math.inf for each in found)
    assert set(model.sizes) == set(sizes)


@pytest.mark.parametrize("size", [1, 3, 7, 8, 9])
@pytest.mark.parametrize(
    "change",
    [
        np.zeros_like,
        lambda answers: answers[:, ::-1],
        lambda answers: answers * np.float32(np.nan),
        wrong_last_row,
    ],
    ids=["zeros", "nonsense", "nan", "one row"],
)
def test_a_fault_at_exactly_one_size_is_found_and_only_that_size_named(size: int, change) -> None:
    found = run(Model(change, only_at=size), (1, 3, 7, 8, 9))

    assert [each.size for each in found if each.failures] == [size]
    (wrong,) = (each for each in found if each.failures)
    assert all(line.startswith(f"at batch {size}: ") for line in wrong.failures)


def test_one_wrong_row_of_many_is_told_with_its_place() -> None:
    found = run(Model(wrong_last_row, only_at=32), (1, 32))

    assert (
        found[1]
        .failures[0]
        .startswith("at batch 32: picture 32 of 32 is answered otherwise than at batch 1: SQNR ")
    )
    assert "is below the 15 dB asked for" in found[1].failures[0]


def test_a_gate_that_is_broken_at_one_size_is_told_with_value_and_limit() -> None:
    found = run(
        Model(lambda answers: answers * np.float32(0.9), only_at=3),
        (1, 3),
        Gate(max_relative_error=30.0, min_sqnr_db=30.0),
    )

    assert found[1].failures == ("at batch 3: SQNR 20.00 dB is below the 30.00 dB asked for",)


def test_rounding_that_differs_between_sizes_is_no_fault() -> None:
    found = run(Model(lambda answers: np.round(answers * 8) / 8, only_at=1), (1, 8))

    assert not any(each.failures for each in found)
    assert 25 < found[0].worst_sqnr_db < 60


def regression(outputs: int, seed: int, wrong: float = 0.0) -> list[AtBatchSize]:
    """Values that other kernels round otherwise, at 24 dB in the mean, as INT8 of B0 does.

    `wrong` is what the last picture's are off by at a batch of 16, in deviations of the values.
    """
    draw = np.random.default_rng(seed)
    pixels = np.arange(16, dtype=np.uint8).reshape(16, 1, 1, 1)
    values = draw.normal(size=(16, outputs)).astype(np.float32)

    class Rounded:
        name, execution_precision = "model", "INT8"

        def infer(self, batch: np.ndarray, /) -> np.ndarray:
            answers = values[batch[:, 0, 0, 0]]
            noise = draw.normal(size=answers.shape) * 10 ** (-24 / 20)
            off = wrong if len(batch) == 16 else 0.0
            last = (batch == 15).reshape(-1, 1)
            return (answers + (noise if len(batch) > 1 else 0) + off * last).astype(np.float32)

    check = BatchSizeCheck(pixels, values, "regression")
    return check.run(Rounded(), (1, 2, 4, 8, 16), OWN_ANSWERS_DB["int8"])


@pytest.mark.parametrize("outputs", [1, 2, 5, 40])
def test_few_values_that_are_rounded_otherwise_are_no_fault(outputs: int) -> None:
    """One picture's single value may be off by three deviations, and the next one's by none."""
    found = [each for seed in range(200) for each in regression(outputs, seed)]
    assert sum(bool(each.failures) for each in found) <= 1
    worst = min(each.worst_sqnr_db for each in found)
    assert (worst < OWN_ANSWERS_DB["int8"]) == (outputs < 10)


@pytest.mark.parametrize("outputs", [1, 2, 5, 40])
def test_one_picture_of_few_values_that_is_wrong_is_found(outputs: int) -> None:
    missed = 0
    for seed in range(50):
        *others, last = regression(outputs, seed, wrong=2.0)
        missed += not last.failures
        assert not last.failures or "picture 16 of 16" in last.failures[0]
        assert sum(bool(each.failures) for each in others) == 0
    assert missed == 0


@pytest.mark.parametrize(
    ("outputs", "decibels"), [(1, 14.529), (2, 12.073), (10, 7.186), (100, 2.824), (1000, 0.970)]
)
def test_how_far_chance_goes(outputs: int, decibels: float) -> None:
    """The quantile of one in ten million of the chi-squared distribution, by SciPy."""
    assert 10 * math.log10(_quantile(outputs, 5.2)) == pytest.approx(decibels, abs=0.8)


@pytest.mark.parametrize(("outputs", "median"), [(1, 0.4549), (2, 0.6931), (10, 0.9342)])
def test_where_the_median_is(outputs: int, median: float) -> None:
    """That of the chi-squared distribution over its mean, by SciPy."""
    assert _quantile(outputs, 0.0) == pytest.approx(median, rel=0.04)


@pytest.mark.parametrize("wrong", [1, 2, 5, 8, 16])
def test_several_wrong_pictures_do_not_hide_one_another(wrong: int) -> None:
    """A wrong padding, at 14 dB, among answers of a thousand logits that are rounded otherwise."""
    assert not _is_wrong([27.0] * 16, 15.0, 1000)
    assert _is_wrong([14.0] * wrong + [27.0] * (16 - wrong), 15.0, 1000)


def test_nan_is_wrong_and_a_single_picture_has_the_limit_itself() -> None:
    assert _is_wrong([math.nan] + [27.0] * 15, 15.0, 1000)
    assert _is_wrong([math.nan], 15.0, 1)
    assert _is_wrong([14.9], 15.0, 1)
    assert not _is_wrong([15.1], 15.0, 1)
    assert not _is_wrong([math.inf] * 3, 60.0, 1000)


@pytest.mark.parametrize(
    "failure", [BackendError("the engine refused"), None], ids=["error", "rows"]
)
def test_an_engine_that_fails_at_one_size_is_a_failure_there(failure: BackendError | None) -> None:
    def fail(answers: np.ndarray) -> np.ndarray:
        if failure is not None:
            raise failure
        return answers[1:]

    found = run(Model(fail, only_at=3), (1, 3, 8))

    assert [each.size for each in found if each.failures] == [3]
    assert found[1].failures[0].startswith("at batch 3: ")
    assert found[1].to_dict()["sqnr_db"] == "NaN"


def test_a_model_that_never_answers_fails_at_all_sizes() -> None:
    def fail(_: np.ndarray) -> np.ndarray:
        raise BackendError("gone")

    assert all(each.failures for each in run(Model(fail), (1, 8)))


def rows_but_the_first(strength: float):
    """Most rows of a batch become others, by so much of their own strength."""

    def change(answers: np.ndarray) -> np.ndarray:
        wrong = answers + np.float32(strength) * answers[:, ::-1]
        return np.concatenate([answers[:1], wrong[1:]])

    return change


def fine_rounding(answers: np.ndarray) -> np.ndarray:
    return answers * np.float32(1 + 1e-6)


@pytest.mark.parametrize("own_answers_db", [15.0, 60.0])
def test_a_size_that_is_far_further_off_than_all_others_is_a_fault(own_answers_db: float) -> None:
    """At 18 dB, above the limit of INT8, where every other size is at 120 dB."""

    class Unlike(Model):
        def infer(self, batch: np.ndarray, /) -> np.ndarray:
            answers = fine_rounding(right(batch))
            return rows_but_the_first(0.15)(answers) if len(batch) == 3 else answers

    found = BatchSizeCheck(PIXELS, right(PIXELS)).run(Unlike(), (1, 2, 3, 8), own_answers_db)

    assert [each.size for each in found if each.failures] == [3]
    assert 15 < found[2].sqnr_db < 19
    (failure,) = found[2].failures
    assert "dB is below the " in failure
    assert failure.endswith("dB asked for")


def test_limits_for_many_pictures_hold_at_every_size() -> None:
    limits = Gate(min_sqnr_db=60.0, max_kl=0.001, min_agreement=1.0, max_drop=1.0)
    check = BatchSizeCheck(PIXELS, right(PIXELS))

    found = check.run(Model(rows_but_the_first(0.15), only_at=3), (1, 3), 15.0, limits=limits)

    assert found[0].failures == ()
    assert any("dB is below the 60.00 dB asked for" in each for each in found[1].failures)
    assert any("nats is above the 0.001 nats allowed" in each for each in found[1].failures)


def test_a_few_pictures_that_are_harder_at_every_size_do_not_break_a_limit() -> None:
    def harder(answers: np.ndarray) -> np.ndarray:
        return answers + np.float32(0.15) * answers[:, ::-1]

    check = BatchSizeCheck(PIXELS, right(PIXELS))
    limits = Gate(min_sqnr_db=60.0, max_kl=0.001)

    found = check.run(Model(harder), (1, 3, 8), 15.0, limits=limits)

    assert not any(each.failures for each in found)


@pytest.mark.parametrize(
    ("limit", "others", "is_broken"),
    [(0.9, 1, False), (0.9, 3, False), (0.97, 1, False), (0.97, 4, True), (1.0, 1, True)],
)
def test_other_answers_among_a_few_pictures_are_chance_up_to_a_point(
    limit: float, others: int, is_broken: bool
) -> None:
    reference = np.eye(16, dtype=np.float32)
    found = reference.copy()
    found[:others] = found[:others, ::-1]
    results = []
    for answers in (found, reference):
        comparison = Comparison("a", "b", "", "")
        comparison.update(reference, answers)
        results.append(comparison.result())

    assert bool(broken_limits(Gate(min_agreement=limit), *results)) is is_broken
