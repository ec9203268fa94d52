"""How many times as fast, from rounds in which all took turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet_edge.bench import in_turns, speed_ratios


def test_what_slows_a_whole_round_does_not_change_the_ratio() -> None:
    machine = [1.0, 5.0, 0.7, 30.0, 2.0]
    seconds = {"fp32": [3 * slow for slow in machine], "int8": [2 * slow for slow in machine]}
    ratios = speed_ratios(seconds, "fp32")
    assert ratios["int8"].times_as_fast == pytest.approx(1.5)
    assert ratios["int8"].middle_half == pytest.approx((1.5, 1.5))
    assert ratios["int8"].median_seconds == 4.0
    assert ratios["fp32"].times_as_fast == 1.0


@given(st.lists(st.tuples(st.floats(1e-4, 10), st.floats(1e-4, 10)), min_size=1, max_size=30))
def test_the_median_is_between_the_quartiles(rounds: list[tuple[float, float]]) -> None:
    one, other = (list(each) for each in zip(*rounds, strict=True))
    ratio = speed_ratios({"one": one, "other": other}, "one")["other"]
    low, high = ratio.middle_half
    assert low <= ratio.times_as_fast <= high
    back = speed_ratios({"one": one, "other": other}, "other")["one"]
    if len(rounds) % 2:  # an even number has two medians, and the mean of both is not symmetric
        assert back.times_as_fast == pytest.approx(1 / ratio.times_as_fast)


def test_progress_counts_the_rounds_with_the_warmup() -> None:
    told: list[tuple[int, int]] = []
    in_turns({"a": lambda: None}, 3, 2, progress=lambda done, total: told.append((done, total)))
    assert told == [(at, 5) for at in range(6)]


def test_shuffled_turns_are_as_many_and_each_comes_after_each_other() -> None:
    called: list[str] = []
    calls = {name: (lambda name=name: called.append(name)) for name in "abc"}
    seconds = in_turns(calls, 40, 2, shuffled=True)
    assert {name: len(taken) for name, taken in seconds.items()} == dict.fromkeys("abc", 40)
    rounds = ["".join(called[at : at + 3]) for at in range(0, len(called), 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) == 6
