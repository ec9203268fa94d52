"""Timing bundles and served models against each other."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.bench.calls import FileCalls, NoiseCalls, Original
from effnet_edge.bench.load import under_load
from effnet_edge.bench.other_work import ProcessorTime
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
    from pathlib import Path

    from effnet_edge.progress import Steps
    from effnet_edge.runtime.layer_times import LayerTime
    from effnet_edge.size import Size

SERVED_SECONDS = 60.0
LONG_SECONDS = 120.0
"""Of what is expected to take longer, that is told before."""


@dataclass(frozen=True)
class ModelTiming:
    """A model's timing and what really ran; `images_per_second` is throughput times batch.

    Attributes:
        path: the bundle's, the address of a served model, or the name of an `Original`.
        concurrency: how many asked at once.
        seconds: of each timed call.
        from_files: the way from a file to what a person is told, where there were files.
        seconds_from_files: of each of these calls.
        layers: how long each layer takes, of a bundle's, where that was asked for.
        other_work: the share of the machine's processor time, 0..1, that other programs had
            meanwhile; None where it is not known, or a served model is timed, whose server may be
            one of them.
    """

    path: str
    device: str
    execution_precision: str
    batch: int
    images_per_second: float
    timing: Timing
    concurrency: int = 1
    seconds: tuple[float, ...] = ()
    from_files: Timing | None = None
    seconds_from_files: tuple[float, ...] = ()
    layers: tuple[LayerTime, ...] = ()
    other_work: float | None = None


def bench_models(
    paths: Sequence[str | os.PathLike[str]],
    batch: int = 1,
    runs: int = 100,
    threads: int | None = None,
    warmup: int = 10,
    progress: Steps | None = None,
    trusted: str | os.PathLike[str] | bytes | None = None,
    *,
    device: str | None = None,
    precision: str | None = None,
    throughput: bool = False,
    streams: int | None = None,
    layers: bool = False,
    files: Sequence[Path] | None = None,
    concurrency: int | None = None,
    seconds: float | None = None,
    asking: Asking | None = None,
    originals: Mapping[str, Original] | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[ModelTiming]:
    """Time `infer` on `batch` images of random pixels, alternating between bundles and addresses.

    Pixels of noise are fair here: the time does not depend on them. A path may be given twice, to
    see how far two timings of the same thing lie apart. `progress` is told after every call;
    the options of engines are as in `EngineRunner.load`.

    Args:
        layers: time each bundle's layers, too, on a batch of the size nearest to `batch` that its
            engine takes; `tell` is given those whose library does not tell.
        files: pictures, to time the way from a file to its label, too, of each bundle.
        concurrency: calls that wait for their answer at once; without, 1, and for `throughput` as
            many as the engines work on best.
        seconds: the most that the calls of one model may take in all, after which fewer than `runs`
            are timed; `SERVED_SECONDS` where one is served and None is given.
        asking: how served models are asked.
        originals: networks that `paths` may name, too, beside a bundle that tells their input.
        tell: is given a line on what will take long.

    Raises:
        UsageError: no path, a batch below 1, `layers` where no library tells, or what
            `EngineRunner.load` and `in_turns` refuse.
        BundleError, BackendError: a bundle cannot be loaded.
        ServerError, BackendError, UsageError: as `ServedModel.connect` and `ServedRequests`.
        ImageError: as `FileCalls`.

    """
    if batch < 1:
        raise UsageError(f"batch {batch}: needs 1 or more")
    addresses = [str(path) for path in paths if is_address(str(path))]
    asking = asking or Asking()
    asking.check(addresses)
    if seconds is None and addresses:
        seconds = SERVED_SECONDS
    with ExitStack() as stack:
        models: list[EngineRunner | ServedModel | Original] = []
        for path in paths:
            if originals and path in originals:
                models.append(originals[str(path)])
            elif is_address(str(path)):
                models.append(stack.enter_context(asking.connect(str(path))))
            else:
                runner = EngineRunner.load(
                    path,
                    device=device,
                    threads=threads,
                    precision=precision,
                    throughput=throughput,
                    streams=streams,
                    trusted=trusted,
                )
                models.append(stack.enter_context(runner))
        runners = [each for each in models if isinstance(each, EngineRunner)]
        if concurrency is None:
            concurrency = max((each.parallelism for each in runners), default=1)
        size = runners[0].manifest.preprocessing.resolution if runners else None
        engines: dict[int, Callable[[], object]] = {
            index: _call(model, runners, batch, size) for index, model in enumerate(models)
        }
        whole_ways: dict[int, Callable[[], object]] = {
            index: FileCalls(model, files, batch)
            for index, model in enumerate(models)
            if files is not None and isinstance(model, EngineRunner)
        }
        if tell:
            _tell_if_long(runners, batch, runs + warmup, 1 + bool(whole_ways), seconds, tell)
        _warm_up(models, engines)
        layer_times = _layer_times(runners, batch, tell) if layers else {}
        before = None if addresses else ProcessorTime.now()
        names = [_path(model) for model in models]
        timed = _timed(names, engines, whole_ways, concurrency, runs, warmup, seconds, progress)
        after = ProcessorTime.now() if before else None
        other_work = before.others_until(after) if before and after else None
        return [
            ModelTiming(
                path=_path(model),
                device=_device(model),
                execution_precision=_precision(model),
                batch=batch,
                images_per_second=batch * timed[index, False][0].throughput,
                timing=timed[index, False][0],
                concurrency=concurrency,
                seconds=timed[index, False][1],
                from_files=timed[index, True][0] if index in whole_ways else None,
                seconds_from_files=timed[index, True][1] if index in whole_ways else (),
                layers=layer_times.get(id(model), ()),
                other_work=other_work,
            )
            for index, model in enumerate(models)
        ]


def _call(
    model: EngineRunner | ServedModel | Original,
    runners: Sequence[EngineRunner],
    batch: int,
    size: Size | None,
) -> Callable[[], object]:
    if isinstance(model, ServedModel):
        return ServedRequests(model, batch, size).send
    if isinstance(model, EngineRunner):
        return NoiseCalls(model, batch)
    if not runners:
        raise UsageError(f"{model.name}: name a bundle of it, too, which tells its input")
    return NoiseCalls(runners[0], batch, model)


def _warm_up(
    models: Sequence[EngineRunner | ServedModel | Original],
    engines: Mapping[int, Callable[[], object]],
) -> None:
    """Fill the runners' memory with maps of the batch, too, before it moves to huge pages."""
    for index, model in enumerate(models):
        if isinstance(model, EngineRunner):
            engines[index]()
            model.warmup(runs=1)


def _layer_times(
    runners: Sequence[EngineRunner], batch: int, tell: Callable[[str], None] | None
) -> dict[int, tuple[LayerTime, ...]]:
    """Of each runner, by its `id`, whose library tells them."""
    found: dict[int, tuple[LayerTime, ...]] = {}
    untold = ["no bundle is among the models, and a served one does not tell"]
    for runner in runners:
        try:
            found[id(runner)] = tuple(runner.layer_times(runner.manifest.batch.nearest(batch)))
        except UsageError as error:
            untold.append(f"{runner.bundle.path}: {error}")
    if found and tell:
        for line in untold[1:]:
            tell(line)
    if not found:
        raise UsageError(f"--layers: {untold[-1]}")
    return found


def _tell_if_long(
    runners: Sequence[EngineRunner],
    batch: int,
    calls: int,
    ways: int,
    seconds: float | None,
    tell: Callable[[str], None],
) -> None:
    """Say what all calls will take, as far as one call of the engine's own size tells it."""
    expected = 0.0
    for runner in runners:
        size = min(batch, runner.manifest.batch.maximum)
        one = NoiseCalls(runner, size)
        one()
        start = time.perf_counter()
        one()
        expected += (time.perf_counter() - start) * batch / size
    least, most = 2 * ways * expected, calls * ways * expected
    if seconds is not None:
        most = min(most, max(least, seconds * len(runners) * ways))
    if most > LONG_SECONDS:
        tell(
            f"{batch} image{'s take' if batch > 1 else ' takes'} "
            f"{'each model in turn ' if len(runners) > 1 else ''}about "
            f"{_told(expected)} here, and all calls about {_told(most)}: a smaller --batch, fewer "
            "--runs, or --seconds, end it sooner"
        )


def _told(seconds: float) -> str:
    for unit, length in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.2g} s"


_Key = tuple[int, bool]
"""The number of a model, and whether it is the whole way from a file."""


def _timed(
    names: Sequence[str],
    engines: Mapping[int, Callable[[], object]],
    whole_ways: Mapping[int, Callable[[], object]],
    concurrency: int,
    runs: int,
    warmup: int,
    seconds: float | None,
    progress: Steps | None,
) -> dict[_Key, tuple[Timing, tuple[float, ...]]]:
    """Of each call its timing and the seconds of its calls, all taking turns with all."""
    keys: dict[str, _Key] = {f"{index} {names[index]}": (index, False) for index in engines}
    keys |= {f"{index} {names[index]} from files": (index, True) for index in whole_ways}
    calls = {
        name: (whole_ways if whole else engines)[index] for name, (index, whole) in keys.items()
    }
    elapsed: dict[str, float] | None = None
    if concurrency == 1:
        limit = None if seconds is None else seconds * len(calls)
        taken = in_turns(calls, runs, warmup, progress=progress, limit=limit)
    else:
        under_load(calls, concurrency, warmup, seconds)
        loaded = under_load(calls, concurrency, runs, seconds, progress)
        elapsed = {name: each.elapsed for name, each in loaded.items()}
        taken = {name: each.seconds for name, each in loaded.items()}
    found: dict[_Key, tuple[Timing, tuple[float, ...]]] = {}
    # Each kind by itself: ratios are to the first model's of the same kind.
    for whole in (False, True):
        of_kind = {name: taken[name] for name, key in keys.items() if key[1] is whole}
        if of_kind:
            for timing in summarize(of_kind, elapsed):
                found[keys[timing.name]] = timing, tuple(taken[timing.name])
    return found


def _path(model: EngineRunner | ServedModel | Original) -> str:
    if isinstance(model, Original):
        return model.name
    return str(model.address if isinstance(model, ServedModel) else model.bundle.path)


def _device(model: EngineRunner | ServedModel | Original) -> str:
    if isinstance(model, Original):
        return model.ran_on
    if isinstance(model, ServedModel):
        return f"{model.description.server} by {model.form}"
    return model.device


def _precision(model: EngineRunner | ServedModel | Original) -> str:
    return PRECISION_NOT_TOLD if isinstance(model, ServedModel) else model.execution_precision
