"""What the engines of bundles take, in turns on this machine."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from effnet_edge.bench import in_turns
from effnet_edge.bench.calls import NoiseCalls
from effnet_edge.bench.load import under_load
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from effnet_edge.bundle import Bundle
    from effnet_edge.progress import Progress

ROUNDS = 100
WARMUP = 10
MOST_SECONDS = 60.0
"""Of the timing in all; fewer rounds are made of slow networks."""


END_ROUNDS = 20
"""At the ends of the batch's range, which choose nothing."""
LOAD_CALLS = 100
MOST_LOAD_SECONDS = 5.0
"""Of each engine's calls under load."""


def seconds_in_turns(
    bundles: Mapping[str, Bundle],
    progress: Progress,
    batch: int | None = None,
    rounds: int = ROUNDS,
) -> dict[str, list[float]]:
    """Time the engines of bundles, which take turns in another order each round.

    Args:
        batch: images of noise in a call; as many as each engine is best for if None.

    Returns:
        The seconds of each call, the same number for all of them. The engines choose their own
        number of threads.

    Raises:
        BackendError: an engine cannot be loaded, or fails.
    """
    with ExitStack() as stack:
        calls = _calls(bundles, stack, batch, throughput=False)[0]
        told = partial(progress, "rounds")
        return in_turns(calls, rounds, WARMUP, progress=told, shuffled=True, limit=MOST_SECONDS)


def images_per_second(bundles: Mapping[str, Bundle], progress: Progress) -> dict[str, float]:
    """What the engines of bundles do a second, loaded for throughput, in turns by blocks.

    As many callers ask at once as the engine works on best, each for the images that it is best
    for, and wait for each answer.

    Raises:
        BackendError: an engine cannot be loaded, or fails.
    """
    with ExitStack() as stack:
        calls, runners = _calls(bundles, stack, None, throughput=True)
        callers = max(each.parallelism for each in runners.values())
        under_load(calls, callers, WARMUP, MOST_LOAD_SECONDS / 5)
        steps = partial(progress, "blocks")
        loaded = under_load(calls, callers, LOAD_CALLS, MOST_LOAD_SECONDS, steps)
        return {
            name: len(each.seconds) * runners[name].manifest.batch.optimum / each.elapsed
            for name, each in loaded.items()
        }


def _calls(
    bundles: Mapping[str, Bundle], stack: ExitStack, batch: int | None, *, throughput: bool
) -> tuple[dict[str, Callable[[], object]], dict[str, EngineRunner]]:
    """A call of each engine with so many images of noise, and the engines, closed by `stack`."""
    calls: dict[str, Callable[[], object]] = {}
    runners = {}
    for name, bundle in bundles.items():
        runner = runners[name] = stack.enter_context(EngineRunner.of(bundle, throughput=throughput))
        calls[name] = NoiseCalls(runner, batch or runner.manifest.batch.optimum)
    return calls, runners
