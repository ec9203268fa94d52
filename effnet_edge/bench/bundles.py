"""Timing bundles against each other."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.bench.timing import Timing, compare
from effnet_edge.errors import UsageError
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from effnet_edge.progress import Steps


@dataclass(frozen=True)
class BundleTiming:
    """A bundle's timing and what really ran; `images_per_second` is throughput times batch."""

    path: str
    device: str
    execution_precision: str
    batch: int
    images_per_second: float
    timing: Timing


def bench_bundles(
    paths: Sequence[str | os.PathLike[str]],
    batch: int = 1,
    runs: int = 100,
    threads: int | None = None,
    warmup: int = 10,
    progress: Steps | None = None,
    trusted: str | os.PathLike[str] | bytes | None = None,
) -> list[BundleTiming]:
    """Time `infer` on `batch` images of random pixels, alternating between the bundles.

    Pixels of noise are fair here: the time does not depend on them. A path may be given twice, to
    see how far two timings of the same thing lie apart. `progress` is told after every round;
    `trusted` is as in `EngineRunner.load`.

    Raises:
        UsageError: no path, a batch below 1, or what `EngineRunner.load` and `compare` refuse.
        BundleError, BackendError: a bundle cannot be loaded.

    """
    if batch < 1:
        raise UsageError(f"batch {batch}: needs 1 or more")
    with ExitStack() as stack:
        runners = [
            stack.enter_context(EngineRunner.load(path, threads=threads, trusted=trusted))
            for path in paths
        ]
        calls = {f"{i} {runner.name}": _call(runner, batch) for i, runner in enumerate(runners)}
        timings = compare(calls, runs, warmup, progress=progress)
        return [
            BundleTiming(
                path=str(runner.bundle.path),
                device=runner.device,
                execution_precision=runner.execution_precision,
                batch=batch,
                images_per_second=batch * timing.throughput,
                timing=timing,
            )
            for runner, timing in zip(runners, timings, strict=True)
        ]


def _call(runner: EngineRunner, batch: int) -> Callable[[], object]:
    side = runner.manifest.input
    shape = (batch, side.height, side.width, side.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return partial(runner.infer, pixels)
