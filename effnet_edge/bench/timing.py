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

    `throughput` is calls a second over all timed calls; `ratio` is the median over the first
    callable's median.
    """

    name: str
    runs: int
    median: float
    p90: float
    p99: float
    minimum: float
    throughput: float
    ratio: float


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

    `clock` gives seconds; `progress` is told after every round. `shuffled` takes another order in
    every round, always the same ones: what a call leaves behind in caches and threads then does
    not always hit the same other one. After `limit` seconds it ends, with what was timed: each is
    called once at least, and the untimed calls take no more than half of them.

    Raises:
        UsageError: nothing to call, `runs` below 1, or `warmup` below 0.

    """
    if not callables:
        raise UsageError("nothing to compare: name at least one")
    if runs < 1 or warmup < 0:
        raise UsageError(f"runs {runs}, warmup {warmup}: needs at least 1 run and 0 for the warmup")
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    order, generator = list(callables.items()), random.Random(0)
    begun = clock()
    for done in range(1, warmup + runs + 1):
        over = 0.0 if limit is None else (clock() - begun) / limit
        if done <= warmup and over > _MOST_WARMUP:
            continue
        if over > 1 and done > warmup + 1:
            break
        if shuffled:
            generator.shuffle(order)
        for name, call in order:
            start = clock()
            call()
            if done > warmup:
                seconds[name].append(clock() - start)
        if progress:
            progress(done, warmup + runs)
    return seconds


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
    median, p90, p99 = (float(value) for value in np.percentile(seconds, [50, 90, 99]))
    return Timing(
        name=name,
        runs=len(seconds),
        median=median,
        p90=p90,
        p99=p99,
        minimum=min(seconds),
        throughput=len(seconds) / elapsed,
        ratio=median / reference,
    )
