from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet_edge.bench import compare
from effnet_edge.errors import UsageError


class FakeWorld:
    """A clock that only calls move, and the order they came in."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[str] = []

    def clock(self) -> float:
        return self.now

    def call(self, name: str, durations: list[float]) -> object:
        remaining = iter(durations)

        def work() -> None:
            self.calls.append(name)
            self.now += next(remaining)

        return work


def test_calls_alternate_and_the_warmup_is_not_timed() -> None:
    world = FakeWorld()
    calls = {
        "a": world.call("a", [50, 50, 1, 2, 3]),
        "b": world.call("b", [70, 70, 4, 4, 4]),
    }
    a, b = compare(calls, runs=3, warmup=2, clock=world.clock)
    assert world.calls == list("ab" * 5)
    assert (a.name, a.runs, a.median, a.minimum, a.ratio) == ("a", 3, 2, 1, 1)
    assert (b.name, b.runs, b.median, b.minimum, b.ratio) == ("b", 3, 4, 4, 2)
    assert a.throughput == pytest.approx(0.5)
    assert b.throughput == pytest.approx(0.25)


@settings(deadline=None)
@given(durations=st.lists(st.floats(0.001, 10), min_size=1, max_size=50))
def test_percentiles_are_numpys(durations: list[float]) -> None:
    world = FakeWorld()
    world.now = 0.0
    calls = {"a": world.call("a", durations)}
    (timing,) = compare(calls, runs=len(durations), warmup=0, clock=world.clock)
    assert timing.median == pytest.approx(np.quantile(durations, 0.5))
    assert timing.p90 == pytest.approx(np.quantile(durations, 0.9))
    assert timing.p99 == pytest.approx(np.quantile(durations, 0.99))
    assert timing.minimum == pytest.approx(min(durations))
    assert timing.minimum <= timing.median <= timing.p90 <= timing.p99


@pytest.mark.parametrize(("runs", "warmup"), [(0, 0), (-1, 0), (1, -1)])
def test_runs_that_make_no_sense_are_refused(runs: int, warmup: int) -> None:
    with pytest.raises(UsageError, match=f"runs {runs}, warmup {warmup}"):
        compare({"a": int}, runs, warmup)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to compare"):
        compare({}, 1, 0)
