"""One tune: exports every candidate, measures it, and writes the one that was asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from effnet_calibration.calibrate import observe
from effnet_calibration.threads import same_threads
from effnet_edge.bundle.writing import checked_destination
from effnet_edge.choosing.frontier import Measured
from effnet_edge.choosing.timing import END_ROUNDS, images_per_second, seconds_in_turns
from effnet_edge.errors import NO_MEMORY, EffnetEdgeError, GateError, is_lack_of_memory
from effnet_edge.parity.report.loss import divergence
from effnet_edge.progress import Progress, no_progress
from effnet_export.advice import need_library
from effnet_export.budget import check_labels
from effnet_export.calibration import SharedCalibration
from effnet_export.loading import load
from effnet_export.pictures import check_labelled
from effnet_export.pipeline import export_bundle
from effnet_export.tuning.candidates import candidates_for, export_request, told
from effnet_export.tuning.carrying import Carried, to_carry
from effnet_export.tuning.existing import AS_IT_IS
from effnet_export.tuning.measuring import Judge
from effnet_export.tuning.outcome import Beside, Tried, Tuned, choose
from effnet_export.tuning.placing import put_in_place, write_carried

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from effnet_edge.bundle import Bundle
    from effnet_edge.bundle.signing import SigningKey
    from effnet_edge.parity import ParityResult
    from effnet_export.loading import Loaded
    from effnet_export.request import ExportRequest
    from effnet_export.tuning.candidates import Candidate
    from effnet_export.tuning.limits import Limits

HELD_OUT_SHARE = 0.25
"""Of the pictures, to judge the loss on."""


@dataclass(frozen=True)
class Turn:
    """Which candidate's turn it is, counted from 1; the seconds that are left, where known."""

    number: int
    total: int
    name: str
    seconds_left: float | None


OnStage = Callable[[Turn | None, str], None]
"""Called with the name of each stage as it begins, and whose it is; None is that of all."""


def tune(
    base: ExportRequest,
    limits: Limits,
    on_stage: OnStage = lambda _turn, _stage: None,
    on_progress: Progress = no_progress,
    key: SigningKey | None = None,
    existing: Bundle | None = None,
) -> Tuned:
    """Try all candidates of the request's target and network, and write the one asked for.

    That is the fastest one within the limits. Without limits it is `DEFAULT`, or where a bundle is
    tuned the fastest that loses no more than it does. Nothing is written where there is none.

    Args:
        base: in INT8, on pictures of one's own; its output is where the chosen bundle goes.
        key: signs the bundle.
        existing: the bundle that is tuned, of which `request_like` made the request.

    Raises:
        UsageError: the limits need labels and the pictures have none, or not those of the network,
            or what an export refuses.
        GateError: no candidate at all could be made.
        CheckpointError, BundleError, BackendError: as their texts say.
    """
    begun = time.perf_counter()
    row = base.chosen_target.row
    need_library(row, f"timing engines of {row.title}")
    with _trial(base, limits, on_stage, on_progress, existing) as trial:
        tried = trial.timed(trial.made())
        limits = limits.or_within(trial.losses.get(AS_IT_IS))
        chosen = choose(tried, limits)
        bundle = None
        if chosen is not None:
            bundle = put_in_place(trial.bundles[chosen.name], base.directory, key)
        judged_on = trial.judge.judged_on
    return Tuned(tried, limits, chosen, bundle, judged_on, time.perf_counter() - begun)


def tune_for_device(
    base: ExportRequest,
    limits: Limits,
    on_stage: OnStage = lambda _turn, _stage: None,
    on_progress: Progress = no_progress,
    key: SigningKey | None = None,
    existing: Bundle | None = None,
) -> Carried:
    """The same where the device builds the engine, and alone can tell its time.

    The bundle carries those graphs within the limits that may be the fastest; which of them is,
    `effnet_edge.choosing` finds out when it builds them. What they lose is simulated here.

    Args:
        limits: on the loss alone.

    Raises:
        UsageError, GateError, CheckpointError, BundleError, BackendError: as `tune`.
    """
    begun = time.perf_counter()
    with _trial(base, limits, on_stage, on_progress, existing) as trial:
        tried = trial.made()
        limits = limits.or_within(trial.losses.get(AS_IT_IS))
        carried = to_carry(tried, limits, {n: b.manifest for n, b in trial.bundles.items()})
        bundle = None
        if carried:
            on_stage(None, "carry")
            bundle = write_carried(
                carried, trial.bundles, limits, trial.judge.reference, base.directory, key
            )
        judged_on = trial.judge.judged_on
    return Carried(tried, limits, carried, bundle, judged_on, time.perf_counter() - begun)


@contextmanager
def _trial(
    base: ExportRequest,
    limits: Limits,
    on_stage: OnStage,
    on_progress: Progress,
    existing: Bundle | None,
) -> Iterator[_Trial]:
    """What all candidates share, and a folder for them that is gone after."""
    checked_destination(base.directory)
    on_stage(None, "load")
    loaded = load(base, on_progress, HELD_OUT_SHARE, existing)
    if limits.loss.max_drop is not None:
        check_labelled(loaded.pictures.held_out())
    on_stage(None, "answers")
    judge = Judge(loaded, on_progress)
    check_labels(limits.loss, judge.itself)
    on_stage(None, "observe")
    loaded = replace(loaded, calibration=_observed(loaded, on_progress))
    with TemporaryDirectory(prefix="effnet-edge-tune-") as folder:
        yield _Trial(base, loaded, judge, Path(folder), on_stage, on_progress, existing)


def _observed(loaded: Loaded, on_progress: Progress) -> SharedCalibration:
    named, preprocessing = loaded.pictures.calibrated_on, loaded.source.preprocessing
    assert named is not None
    assert not isinstance(named, Path)
    with same_threads():
        return SharedCalibration(observe(loaded.folded, named, preprocessing, on_progress))


class _Trial:
    """Makes, judges and times the candidates.

    Attributes:
        bundles, losses: of those that could be made, by name.
    """

    def __init__(
        self,
        base: ExportRequest,
        loaded: Loaded,
        judge: Judge,
        folder: Path,
        on_stage: OnStage,
        on_progress: Progress,
        existing: Bundle | None,
    ) -> None:
        self.bundles: dict[str, Bundle] = {}
        self._base = base
        self._loaded = loaded
        self.judge = judge
        self._folder = folder
        self._on_stage = on_stage
        self._on_progress = on_progress
        self._existing = existing
        self.losses: dict[str, ParityResult] = {}

    def made(self) -> list[Tried]:
        """What each candidate loses; one that fails is a row with its error.

        Raises:
            GateError: all of them failed.
        """
        candidates = candidates_for(self._base.chosen_target, self._loaded.source.network)
        made = [] if self._existing is None else [self._as_it_is(self._existing)]
        begun = time.perf_counter()
        for done, candidate in enumerate(candidates):
            spent, left = time.perf_counter() - begun, len(candidates) - done
            seconds_left = spent / done * left if done else None
            turn = Turn(done + 1, len(candidates), candidate.name, seconds_left)
            made.append(self._made(candidate, turn))
        if not self.bundles:
            raise GateError(
                f"none of {len(made)} candidates could be made: {made[0].name}: {made[0].problem}"
            )
        return made

    def _as_it_is(self, bundle: Bundle) -> Tried:
        """The bundle that is tuned, with its own table of calibration."""
        self._on_stage(None, "existing")
        return self._judged(AS_IT_IS, told(bundle.manifest), lambda: bundle)

    def timed(self, made: Sequence[Tried]) -> list[Tried]:
        """The same with what each takes here."""
        self._on_stage(None, "time")
        seconds = seconds_in_turns(self.bundles, self._on_progress)
        beside = self._beside()
        return [
            replace(self._measured(each, seconds), beside=beside.get(each.name)) for each in made
        ]

    def _beside(self) -> dict[str, Beside]:
        """What else is timed of each: under load, and at the ends of the batch's range."""
        per_second: dict[str, float] = {}
        if self._base.chosen_target.row.has_streams:
            self._on_stage(None, "throughput")
            per_second = images_per_second(self.bundles, self._on_progress)
        batch, ends = self._base.batch, dict[int, dict[str, float]]()
        for size in sorted({batch.minimum, batch.maximum}) if batch.minimum < batch.maximum else ():
            self._on_stage(None, "ends")
            taken = seconds_in_turns(self.bundles, self._on_progress, size, END_ROUNDS)
            ends[size] = {name: float(np.median(each)) / size for name, each in taken.items()}
        return {
            name: Beside(per_second.get(name), {size: of[name] for size, of in ends.items()})
            for name in self.bundles
        }

    def _made(self, candidate: Candidate, turn: Turn) -> Tried:
        """Export and judge it."""

        def export() -> Bundle:
            request = export_request(candidate, self._base, self._folder)
            result = export_bundle(
                request,
                lambda stage: self._on_stage(turn, stage),
                self._on_progress,
                loaded=self._loaded,
                timed=False,
                built=False,
            )
            self._on_stage(turn, "judge")
            return result.bundle

        return self._judged(candidate.name, candidate.made_of, export)

    def _judged(self, name: str, made_of: str, make: Callable[[], Bundle]) -> Tried:
        """Make a bundle and judge it; where that fails, `made_of` says what it was to be."""
        try:
            bundle = make()
            loss = self.judge.loss(bundle)
        except GateError as error:
            # What it advises are options of export.
            return Tried(name, made_of, problem=error.problem, refused=True)
        except (EffnetEdgeError, OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_lack_of_memory(error):
                raise
            problem = NO_MEMORY if is_lack_of_memory(error) else str(error)
            return Tried(name, made_of, problem=problem or type(error).__name__)
        self.bundles[name], self.losses[name] = bundle, loss
        files = bundle.manifest.files.values()
        return Tried(name, told(bundle.manifest), sum(each.bytes for each in files), loss)

    def _measured(self, tried: Tried, seconds: dict[str, list[float]]) -> Tried:
        if tried.loss is None:
            return tried
        loss = divergence(tried.loss)
        return replace(tried, measured=Measured(tried.name, loss, tuple(seconds[tried.name])))
