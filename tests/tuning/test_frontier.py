"""The frontier is what nothing beats, and the one that is chosen is the fastest within limits."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuning_outcomes import lost, tried, tuned

from effnet_edge.choosing.frontier import Measured, fastest, frontier
from effnet_edge.errors import UsageError
from effnet_edge.parity import Gate
from effnet_edge.parity.report.loss import divergence, divergence_kind
from effnet_export.tuning.limits import Limits
from effnet_export.tuning.outcome import Tried, choose

LOSSES = st.sampled_from([0.0, 0.5, math.nan, math.inf]) | st.floats(0, 10)
TIMES = st.sampled_from([1.0, 2.0]) | st.floats(1e-4, 10)


@st.composite
def measurements(draw: st.DrawFn, least: int = 0) -> list[Measured]:
    rows = draw(st.lists(st.tuples(LOSSES, TIMES), min_size=least, max_size=12))
    jitter = st.lists(st.floats(0.9, 1.1), min_size=5, max_size=5)
    return [
        Measured(f"candidate {at}", loss, tuple(time * each for each in draw(jitter)))
        for at, (loss, time) in enumerate(rows)
    ]


def beats(one: Measured, other: Measured) -> bool:
    no_worse = one.median <= other.median and one.loss <= other.loss
    return no_worse and (one.median, one.loss) != (other.median, other.loss)


@given(measurements())
def test_on_the_frontier_is_what_none_beats_and_no_nan_ever(rows: list[Measured]) -> None:
    best = frontier(rows)
    finite = [each for each in rows if math.isfinite(each.loss)]

    assert all(each in finite for each in best)
    for each in finite:
        beaten = any(beats(other, each) for other in finite)
        twins = [b for b in best if (b.median, b.loss) == (each.median, each.loss)]
        assert len(twins) == (0 if beaten else 1)
    assert [each.median for each in best] == sorted(each.median for each in best)


@given(measurements(least=1))
def test_the_fastest_is_on_the_frontier_and_within_chance_of_its_first(
    rows: list[Measured],
) -> None:
    found, best = fastest(rows), frontier(rows)

    if not best:
        assert found is None
        return
    assert found in best
    assert np.any(np.less_equal(found.seconds, best[0].seconds))
    assert all(each.loss >= found.loss for each in best if each.median <= found.median)


def test_of_two_that_are_as_fast_but_for_chance_the_more_faithful_one_is_taken() -> None:
    rough = Measured("rough", 0.02, (0.99, 1.02, 0.98, 1.01, 0.98))
    close = Measured("close", 0.01, (1.01, 1.00, 1.00, 1.00, 1.00))
    slow = Measured("slow", 0.001, (1.5,) * 5)

    assert frontier([slow, close, rough]) == [rough, close, slow]
    assert fastest([rough, close, slow]) is close


@pytest.mark.parametrize(("lost", "as_fast"), [(0, True), (50, True), (58, True), (59, False)])
def test_chance_explains_few_more_than_half_of_a_hundred_rounds(lost: int, as_fast: bool) -> None:
    """P(59 or more of 100 | 1/2) is 0.044, of 58 or more 0.067."""
    one = Measured("one", 0.0, (1.0,) * 100)
    other = Measured("other", 0.0, (0.9,) * lost + (1.1,) * (100 - lost))

    assert one.is_as_fast_as(other) is as_fast


@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_in_few_rounds_to_be_faster_is_to_win_them_all(rounds: int) -> None:
    slow, fast = Measured("slow", 0.0, (1.0,) * rounds), Measured("fast", 1.0, (0.9,) * rounds)

    assert not slow.is_as_fast_as(fast)
    assert fast.is_as_fast_as(slow)
    assert slow.is_as_fast_as(slow)
    assert fastest([slow, fast]) is fast


ROWS = [
    tried("fp32", 0.0, 20),
    tried("fp16", 0.01, 12),
    tried("int8", 0.3, 8),
    tried("int8-fast", 0.6, 6),
    Tried("int8-broken", "INT8", problem="openvino changed the model", refused=True),
]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(), "int8"),
        (Limits(Gate(max_kl=1.0)), "int8-fast"),
        (Limits(Gate(max_kl=1e-3)), "fp16"),
        (Limits(Gate(max_kl=0.0)), "fp32"),
        (Limits(Gate(max_kl=1.0), seconds=7e-3), "int8-fast"),
        (Limits(seconds=9e-3), "int8-fast"),
        (Limits(Gate(max_kl=1e-3), seconds=9e-3), None),
        (Limits(seconds=1e-3), None),
    ],
)
def test_the_fastest_within_the_limits_is_chosen(limits: Limits, expected: str | None) -> None:
    found = choose(ROWS, limits)
    assert (found and found.name) == expected


def test_a_drop_is_a_limit_too() -> None:
    rows = [tried("int8", 0.1, 8), tried("fast", 0.1, 6, wrong=4)]
    assert rows[1].loss is not None
    assert rows[1].loss.value("top1_drop") == pytest.approx(10)

    found = choose(rows, Limits(Gate(max_drop=5)))

    assert found is rows[0]
    assert choose(rows, Limits(Gate(max_drop=10))) is rows[1]


def test_a_loss_that_is_no_number_is_never_chosen_and_told_as_such() -> None:
    broken = tried("int8", math.nan, 1)
    rows = [*ROWS[:2], broken]

    outcome = tuned(rows, Limits(Gate(max_kl=10)))

    assert "int8" not in outcome.frontier
    assert outcome.chosen is rows[1]
    assert "NaN" in outcome.place(broken)
    assert choose([broken], Limits(seconds=1)) is None
    without = tuned(rows)
    assert without.chosen is None
    assert "int8, which is written where no limit is set" in without.why_none
    assert "its loss is NaN" in without.why_none
    row = outcome.to_dict()["candidates"][-1]
    assert row["loss"]["kl"] == "NaN"
    assert json.dumps(outcome.to_dict(), allow_nan=False)


def test_what_comes_nearest_is_told_in_one_line() -> None:
    outcome = tuned(ROWS, Limits(Gate(max_kl=1e-3), seconds=9e-3))

    assert outcome.chosen is None
    assert outcome.why_none.startswith(
        "no candidate keeps KL divergence ≤ 0.001 nats and 9 ms a call: of the nearest, fp16, "
        "12 ms are above the 9 ms allowed"
    )
    assert "\n" not in outcome.why_none


def test_without_limits_a_default_that_was_refused_is_told_with_its_reason() -> None:
    refused = Tried("int8", "INT8 as export makes it", problem="it is noise", refused=True)
    outcome = tuned([*ROWS[:2], refused])

    assert outcome.chosen is None
    assert "it is noise" in outcome.why_none
    assert "--max-kl" in outcome.why_none
    assert outcome.place(refused) == "refused by a gate"


def test_places_tell_the_frontier_the_beaten_and_the_limits() -> None:
    rows = [*ROWS[:4], tried("worse", 0.9, 21), Tried("no", "INT8", problem="disk full")]
    outcome = tuned(rows, Limits(Gate(max_kl=1e-3)))

    assert [outcome.place(each) for each in rows] == [
        "frontier",
        "chosen",
        "frontier, over a limit",
        "frontier, over a limit",
        "beaten, over a limit",
        "failed",
    ]
    assert outcome.baseline.name == "fp32"
    assert outcome.ratio(outcome.measured[1][2]) == pytest.approx(0.6)


def test_without_fp32_times_are_told_against_the_slowest() -> None:
    assert tuned(ROWS[1:4]).baseline.name == "fp16"


@pytest.mark.parametrize("milliseconds", [0.0, -1.0, math.inf, math.nan])
def test_a_latency_that_is_none_is_refused(milliseconds: float) -> None:
    with pytest.raises(UsageError, match="--max-latency"):
        Limits.of(max_latency=milliseconds)


@pytest.mark.parametrize(
    ("output", "title", "limit"),
    [
        ("single-label", "KL divergence", {"max_kl": 0.01}),
        ("multi-label", "KL divergence per label", {"max_kl": 0.01}),
        ("regression", "error of the spread", {"max_nrmse": 0.5}),
        ("features", "error", {}),
    ],
)
def test_every_kind_of_output_has_a_loss(output: str, title: str, limit: dict[str, float]) -> None:
    rows = [tried("int8", noise, 1, output=output) for noise in (0.01, 0.1, 1.0)]
    losses = [divergence(each.loss) for each in rows]

    assert divergence_kind(output).title == title
    assert losses == sorted(losses)
    assert all(0 < each < math.inf for each in losses)
    assert choose(rows[:1], Limits(Gate(**limit))) is rows[0]
    assert tuned(rows).measures


def test_the_excess_is_infinite_for_nan_and_zero_within() -> None:
    limits = Limits(Gate(max_kl=0.5), seconds=0.01)
    assert limits.excess(lost(math.nan), 0.001) == math.inf
    assert limits.excess(lost(0.01), math.nan) == math.inf
    assert limits.excess(lost(0.01), 0.02) == pytest.approx(1.0)
    assert limits.excess(lost(0.0), 0.01) == pytest.approx(0.0)
