"""Timing bundles and served models against each other."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.bench.load import under_load
from effnet_edge.bench.served import ServedRequests
from effnet_edge.bench.timing import Timing, in_turns, summarize
from effnet_edge.errors import UsageError
from effnet_edge.runtime import EngineRunner
from effnet_edge.serving.address import is_address
from effnet_edge.serving.asking import Asking
from effnet_edge.serving.model import PRECISION_NOT_TOLD, ServedModel

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from effnet_edge.progress import Steps

SERVED_SECONDS = 60.0


@dataclass(frozen=True)
class ModelTiming:
    """A model's timing and what really ran; `images_per_second` is throughput times batch.

    `path` is the bundle's, or the address of a served model; `concurrency` how many asked at once.
    """

    path: str
    device: str
    execution_precision: str
    batch: int
    images_per_second: float
    timing: Timing
    concurrency: int = 1


def bench_models(
    paths: Sequence[str | os.PathLike[str]],
    batch: int = 1,
    runs: int = 100,
    threads: int | None = None,
    warmup: int = 10,
    progress: Steps | None = None,
    trusted: str | os.PathLike[str] | bytes | None = None,
    *,
    concurrency: int = 1,
    seconds: float | None = None,
    asking: Asking | None = None,
) -> list[ModelTiming]:
    """Time `infer` on `batch` images of random pixels, alternating between bundles and addresses.

    Pixels of noise are fair here: the time does not depend on them. A path may be given twice, to
    see how far two timings of the same thing lie apart. `progress` is told after every round;
    `trusted` is as in `EngineRunner.load`.

    Args:
        concurrency: calls that wait for their answer at once.
        seconds: the most that the calls of one model may take in all, after which fewer than `runs`
            are timed; `SERVED_SECONDS` where one is served and None is given.
        asking: how served models are asked.

    Raises:
        UsageError: no path, a batch below 1, or what `EngineRunner.load` and `in_turns` refuse.
        BundleError, BackendError: a bundle cannot be loaded.
        ServerError, BackendError, UsageError: as `ServedModel.connect` and `ServedRequests`.

    """
    if batch < 1:
        raise UsageError(f"batch {batch}: needs 1 or more")
    addresses = [str(path) for path in paths if is_address(str(path))]
    asking = asking or Asking()
    asking.check(addresses)
    if seconds is None and addresses:
        seconds = SERVED_SECONDS
    with ExitStack() as stack:
        models: list[EngineRunner | ServedModel] = []
        for path in paths:
            if is_address(str(path)):
                models.append(stack.enter_context(asking.connect(str(path))))
            else:
                runner = EngineRunner.load(path, threads=threads, trusted=trusted)
                models.append(stack.enter_context(runner))
        runners = [each for each in models if isinstance(each, EngineRunner)]
        size = runners[0].manifest.preprocessing.resolution if runners else None
        calls = {
            f"{index} {_path(model)}": ServedRequests(model, batch, size).send
            if isinstance(model, ServedModel)
            else _call(model, batch)
            for index, model in enumerate(models)
        }
        timings = _timed(calls, concurrency, runs, warmup, seconds, progress)
        return [
            ModelTiming(
                path=_path(model),
                device=_device(model),
                execution_precision=_precision(model),
                batch=batch,
                images_per_second=batch * timing.throughput,
                timing=timing,
                concurrency=concurrency,
            )
            for model, timing in zip(models, timings, strict=True)
        ]


def _timed(
    calls: Mapping[str, Callable[[], object]],
    concurrency: int,
    runs: int,
    warmup: int,
    seconds: float | None,
    progress: Steps | None,
) -> list[Timing]:
    if concurrency == 1:
        limit = None if seconds is None else seconds * len(calls)
        taken = in_turns(calls, runs, warmup, progress=progress, limit=limit)
        return summarize(taken)
    under_load(calls, concurrency, warmup, seconds)
    loaded = under_load(calls, concurrency, runs, seconds, progress)
    elapsed = {name: each.elapsed for name, each in loaded.items()}
    return summarize({name: each.seconds for name, each in loaded.items()}, elapsed)


def _call(runner: EngineRunner, batch: int) -> Callable[[], object]:
    side = runner.manifest.input
    shape = (batch, side.height, side.width, side.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return partial(runner.infer, pixels)


def _path(model: EngineRunner | ServedModel) -> str:
    return str(model.address if isinstance(model, ServedModel) else model.bundle.path)


def _device(model: EngineRunner | ServedModel) -> str:
    if isinstance(model, ServedModel):
        return f"{model.description.server} by {model.form}"
    return model.device


def _precision(model: EngineRunner | ServedModel) -> str:
    return PRECISION_NOT_TOLD if isinstance(model, ServedModel) else model.execution_precision
