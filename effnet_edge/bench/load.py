"""Timing callables while several callers use each at once, as many clients use a server."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from effnet_edge.progress import Steps

BLOCKS = 5


@dataclass
class Loaded:
    """What calls took under load: the seconds of each, and of all from the first to the last."""

    seconds: list[float] = field(default_factory=list)
    elapsed: float = 0.0


def under_load(
    callables: Mapping[str, Callable[[], object]],
    concurrency: int,
    runs: int,
    seconds: float | None = None,
    progress: Steps | None = None,
) -> dict[str, Loaded]:
    """Call each `runs` times, by `concurrency` threads that each wait for one answer at a time.

    The callables take turns in blocks, so that whatever the machine does hits them all. The first
    call that fails ends it with its error.

    Args:
        seconds: after which no call of the same callable begins any more; there is one at least.
        progress: is told at the start and after every block.
    """
    taken = {name: Loaded() for name in callables}
    blocks = min(BLOCKS, runs)
    if progress:
        progress(0, blocks)
    for block in range(blocks):
        asked = runs // blocks + (block < runs % blocks)
        for name, call in callables.items():
            own = taken[name]
            left = None if seconds is None else seconds - own.elapsed
            if left is None or left > 0:
                _run_block(call, concurrency, asked, left, own)
        if progress:
            progress(block + 1, blocks)
    return taken


def _run_block(
    call: Callable[[], object], concurrency: int, runs: int, seconds: float | None, into: Loaded
) -> None:
    tickets, over = count(), threading.Event()
    start = time.perf_counter()
    end = None if seconds is None else start + seconds

    def work() -> list[float]:
        own: list[float] = []
        while not over.is_set() and (end is None or time.perf_counter() < end):
            if next(tickets) >= runs:
                break
            begun = time.perf_counter()
            try:
                call()
            except BaseException:
                over.set()
                raise
            own.append(time.perf_counter() - begun)
        return own

    with ThreadPoolExecutor(concurrency) as pool:
        try:
            working = [pool.submit(work) for _ in range(concurrency)]
            for each in working:
                into.seconds += each.result()
        finally:
            over.set()
    into.elapsed += time.perf_counter() - start
