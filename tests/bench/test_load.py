from __future__ import annotations

import threading
import time

import pytest

from effnet_edge.bench import in_turns
from effnet_edge.bench.load import under_load
from effnet_edge.errors import BackendError


@pytest.mark.parametrize(("concurrency", "runs"), [(1, 1), (2, 7), (8, 3), (3, 50)])
def test_every_callable_is_called_so_often_by_so_many(concurrency: int, runs: int) -> None:
    lock, at_once, most = threading.Lock(), {"a": 0, "b": 0}, {"a": 0, "b": 0}

    def call(name: str) -> None:
        with lock:
            at_once[name] += 1
            most[name] = max(most[name], at_once[name])
            assert at_once["b" if name == "a" else "a"] == 0
        time.sleep(0.001)
        with lock:
            at_once[name] -= 1

    told: list[tuple[int, int]] = []
    taken = under_load(
        {"a": lambda: call("a"), "b": lambda: call("b")},
        concurrency,
        runs,
        progress=lambda done, total: told.append((done, total)),
    )
    for loaded in taken.values():
        assert len(loaded.seconds) == runs
        assert sum(loaded.seconds) <= concurrency * loaded.elapsed
    assert max(most.values()) <= concurrency
    assert told[-1][0] == told[-1][1] == min(5, runs)


def test_as_many_as_asked_for_wait_at_once() -> None:
    together = threading.Barrier(6, timeout=30)
    taken = under_load({"a": together.wait}, 6, 60)
    assert len(taken["a"].seconds) == 60


def test_time_that_is_over_ends_it_with_what_there_is() -> None:
    taken = under_load({"a": lambda: time.sleep(0.02)}, 2, 1_000_000, seconds=0.1)
    assert 1 <= len(taken["a"].seconds) < 1000


def test_the_first_error_ends_it() -> None:
    calls = []

    def failing() -> None:
        calls.append(1)
        if len(calls) >= 10:
            raise BackendError("the server is gone")

    with pytest.raises(BackendError, match="gone"):
        under_load({"a": failing}, 4, 1_000_000)
    assert len(calls) < 20


def test_turns_end_when_their_time_is_over() -> None:
    now = [0.0]
    calls: list[str] = []

    def call(name: str, seconds: float) -> None:
        calls.append(name)
        now[0] += seconds

    callables = {"a": lambda: call("a", 1.0), "b": lambda: call("b", 3.0)}
    seconds = in_turns(callables, 100, 10, clock=lambda: now[0], limit=20.0)
    assert seconds == {"a": [1.0, 1.0, 1.0], "b": [3.0, 3.0, 3.0]}
    assert calls == ["a", "b"] * 6

    calls.clear()
    slow = in_turns({"a": lambda: call("a", 50.0)}, 100, 10, clock=lambda: now[0], limit=20.0)
    assert slow == {"a": [50.0]}


def test_the_time_left_is_that_of_the_limit() -> None:
    """100,000 rounds were told to take half an hour, of which 20 seconds were allowed."""
    now, told = [0.0], list[tuple[int, int]]()

    def call() -> None:
        now[0] += 0.5

    in_turns(
        {"a": call, "b": call},
        100_000,
        2,
        clock=lambda: now[0],
        limit=20.0,
        progress=lambda done, total: told.append((done, total)),
    )
    assert now[0] == 21.0
    for done, total in told[len(told) // 2 :]:
        assert total == pytest.approx(42, abs=4), done
    assert all(done <= total for done, total in told)
