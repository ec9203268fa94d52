"""Timing several callables fairly: in turns, so that whatever the machine does hits them all."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from effnet_edge.progress import Steps


_MOST_WARMUP = 0.5


@dataclass(frozen=True)
class Timing:
    """How long the calls of one callable took. Times are seconds.

    `middle_half` has the quartiles; `throughput` is calls a second over all timed calls; `ratio` is
    the median over the first callable's median.
    """

    name: str
    runs: int
    median: float
    p90: float
    p99: float
    minimum: float
    throughput: float
    ratio: float
    middle_half: tuple[float, float]


def in_turns(
    callables: Mapping[str, Callable[[], object]],
    runs: int,
    warmup: int,
    clock: Callable[[], float] = time.perf_counter,
    progress: Steps | None = None,
    *,
    shuffled: bool = False,
    limit: float | None = None,
) -> dict[str, list[float]]:
    """Call A B C A B C … `warmup` times untimed, then `runs` times timed; the seconds of each call.

    `clock` gives seconds; `progress` is told at the start and after every call. `shuffled` takes
    another order in every round, always the same ones: what a call leaves behind in caches and
    threads then does not always hit the same other one. After `limit` seconds it ends, with what
    was timed: each is called once at least, and the untimed calls take no more than half of them.

    Raises:
        UsageError: nothing to call, `runs` below 1, or `warmup` below 0.

    """
    if not callables:
        raise UsageError("nothing to compare: name at least one")
    if runs < 1 or warmup < 0:
        raise UsageError(f"runs {runs}, warmup {warmup}: needs at least 1 run and 0 for the warmup")
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    order, generator = list(callables.items()), random.Random(0)
    begun, rounds = clock(), warmup + runs
    tell = progress or (lambda _done, _total: None)
    tell(0, rounds * len(order))
    for done in range(rounds):
        over = 0.0 if limit is None else (clock() - begun) / limit
        if done < warmup and over > _MOST_WARMUP:
            continue
        if over > 1 and done > warmup:
            break
        if shuffled:
            generator.shuffle(order)
        for turn, (name, call) in enumerate(order, start=1):
            start = clock()
            call()
            if done >= warmup:
                seconds[name].append(clock() - start)
            tell(done * len(order) + turn, _expected(rounds, done, over) * len(order))
    return seconds


def _expected(rounds: int, done: int, share: float) -> int:
    """How many rounds there will be when so many took this share of the time that there is."""
    return min(rounds, max(done + 1, round(done / share))) if done and share > 0 else rounds


def compare(
    callables: Mapping[str, Callable[[], object]],
    runs: int,
    warmup: int,
    clock: Callable[[], float] = time.perf_counter,
    progress: Steps | None = None,
) -> list[Timing]:
    """Time all in turns; a timing for each. Arguments and errors are those of `in_turns`.

    Percentiles are interpolated linearly between the closest calls.
    """
    return summarize(in_turns(callables, runs, warmup, clock, progress))


def summarize(
    seconds: Mapping[str, list[float]], elapsed: Mapping[str, float] | None = None
) -> list[Timing]:
    """A timing for each callable's calls, of which there are one or more.

    Args:
        elapsed: what all calls of each took, where some ran at once; their sum if None.
    """
    reference = float(np.median(next(iter(seconds.values()))))
    return [
        _summarize(name, taken, elapsed[name] if elapsed else sum(taken), reference)
        for name, taken in seconds.items()
    ]


def _summarize(name: str, seconds: list[float], elapsed: float, reference: float) -> Timing:
    low, median, high, p90, p99 = (
        float(value) for value in np.percentile(seconds, [25, 50, 75, 90, 99])
    )
    return Timing(
        name=name,
        runs=len(seconds),
        median=median,
        p90=p90,
        p99=p99,
        minimum=min(seconds),
        throughput=len(seconds) / elapsed,
        ratio=median / reference,
        middle_half=(low, high),
    )
