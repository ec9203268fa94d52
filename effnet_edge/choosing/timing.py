"""What the engines of bundles take, in turns on this machine."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.bench import in_turns
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from effnet_edge.bundle import Bundle
    from effnet_edge.progress import Progress

ROUNDS = 100
WARMUP = 10
MOST_SECONDS = 60.0
"""Of the timing in all; fewer rounds are made of slow networks."""


def seconds_in_turns(bundles: Mapping[str, Bundle], progress: Progress) -> dict[str, list[float]]:
    """Time the engines of bundles, which take turns in another order each round.

    Returns:
        The seconds of each call, the same number for all of them, on as many images of noise as
        their engine is best for. The engines choose their own number of threads.

    Raises:
        BackendError: an engine cannot be loaded, or fails.
    """
    with ExitStack() as stack:
        calls = {}
        for name, bundle in bundles.items():
            runner = stack.enter_context(EngineRunner.of(bundle))
            taken, batch = runner.manifest.input, runner.manifest.batch.optimum
            shape = (batch, taken.height, taken.width, taken.channels)
            pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            calls[name] = partial(runner.infer, pixels)
        told = partial(progress, "rounds")
        return in_turns(calls, ROUNDS, WARMUP, progress=told, shuffled=True, limit=MOST_SECONDS)
