"""The part of `effnet-edge parity` that tells sizes and, with --speed, times in turns."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from effnet_edge.cli.common import progress_bar, say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from effnet_edge.bench import SpeedRatio
    from effnet_edge.parity.comparison import Classifier
    from effnet_edge.parity.report.costs import Baseline, Cost
    from effnet_edge.pictures.few import FewPictures
    from effnet_export.opening import Models

ROUNDS = 50
_WARMUP = 5
_REFERENCE = "reference"


def costs(
    models: Models, reference: str, candidates: Sequence[str], few: FewPictures, *, timed: bool
) -> tuple[Baseline, list[Cost]]:
    """The model to tell sizes and speeds against, and what each candidate takes.

    The baseline is the first candidate that is an FP32 bundle, where there are others and the
    reference is PyTorch: an engine against an engine. Otherwise it is the reference.

    Args:
        reference, candidates: as they were named on the command line.
        few: the first of these is what the models are timed with, one picture a call.
        timed: whether to time them at all.
    """
    from effnet_edge.parity.report.costs import Baseline, Cost
    from effnet_export.model_sizes import model_bytes

    sizes = [
        model_bytes(spec, model, models.bundle_of(index))
        for index, (spec, model) in enumerate(zip(candidates, models.candidates, strict=True))
    ]
    chosen = _engine_to_compare_with(models, reference)
    speeds = _speeds(models, chosen, few) if timed else {}

    def cost(key: str, size: int | None) -> Cost:
        speed = speeds.get(key)
        if speed is None:
            return Cost(size)
        return Cost(size, speed.times_as_fast, speed.middle_half, speed.median_seconds)

    told = [cost(str(index), size) for index, size in enumerate(sizes)]
    rounds = ROUNDS if speeds else 0
    if chosen is not None:
        return Baseline(models.candidates[chosen].name, told[chosen], rounds), told
    bundle = getattr(models.reference, "bundle", None)  # of an engine
    own = cost(_REFERENCE, model_bytes(reference, models.reference, bundle))
    return Baseline(models.reference.name, own, rounds), told


def _engine_to_compare_with(models: Models, reference: str) -> int | None:
    if reference != "torch" or len(models.candidates) < 2:
        return None
    for index in range(len(models.candidates)):
        bundle = models.bundle_of(index)
        if bundle is not None and bundle.manifest.precision == "fp32":
            return index
    return None


def _speeds(models: Models, chosen: int | None, few: FewPictures) -> dict[str, SpeedRatio]:
    """By index; of a TensorRT bundle that is only simulated here there is no speed to tell."""
    from effnet_edge.bench import in_turns, speed_ratios

    if not len(few):
        say("not timed, as no picture can be read now")
        return {}
    pixels = few.pixels[:1]
    calls: dict[str, Callable[[], object]] = {
        str(index): partial(model.infer, pixels)
        for index, model in enumerate(models.candidates)
        if not _is_simulated(model)
    }
    baseline = _REFERENCE if chosen is None else str(chosen)
    if chosen is None and not _is_simulated(models.reference):
        calls[_REFERENCE] = partial(models.running_reference.infer, pixels)
    if baseline not in calls:
        return {}
    with progress_bar("timing in turns") as progress:
        seconds = in_turns(calls, ROUNDS, _WARMUP, progress=progress, shuffled=True)
    return speed_ratios(seconds, baseline)


def _is_simulated(model: Classifier) -> bool:
    from effnet_edge.parity.inside.tracing import SIMULATED

    return model.execution_precision.endswith(SIMULATED)
