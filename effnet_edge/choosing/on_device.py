"""Builds each graph of a bundle on the device, times the engines there, and keeps the fastest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from effnet_edge.bundle import BundleWriter, Choice, Contender, Latency
from effnet_edge.bundle.bill import SBOM_FILE, next_bill
from effnet_edge.choosing.frontier import Measured, fastest
from effnet_edge.choosing.timing import seconds_in_turns
from effnet_edge.errors import BackendError, BundleError, GateError
from effnet_edge.parity.measures.table import limited_measure
from effnet_edge.parity.report.loss import divergence_kind, in_unit
from effnet_edge.progress import Progress, no_progress
from effnet_edge.runtime.tensorrt.build import (
    as_it_is_now,
    compile_engine,
    place_to_build,
    timing_cache_beside,
    write_engine,
)
from effnet_edge.runtime.tensorrt.gpu import need_gpu
from effnet_edge.runtime.tensorrt.library import library_of

if TYPE_CHECKING:
    from effnet_edge.bundle import Bundle, EngineRecord
    from effnet_edge.bundle.signing import SigningKey
    from effnet_edge.outputs import OutputKind
    from effnet_edge.runtime.tensorrt.plan import BuildOptions

OnStage = Callable[[str, str | None], None]
"""Called with "build" or "time" as it begins, and the graph's name; None for all."""


def build_fastest(
    bundle: Bundle,
    options: BuildOptions | None = None,
    max_seconds: float | None = None,
    on_stage: OnStage = lambda _stage, _name: None,
    on_progress: Progress = no_progress,
    key: SigningKey | None = None,
) -> Bundle:
    """Build, check and time all graphs of a bundle, and let the one that is kept take its place.

    That is the fastest; of those that are as fast but for chance the one that loses least. A graph
    whose engine cannot be built, or answers otherwise than the graph, is told in the manifest with
    the reason, and the others go on.

    Args:
        bundle: an open one.
        max_seconds: the most that a call may take in the median.
        key: as of `build_engine`.

    Raises:
        GateError: no engine could be built and held its answers, or the fastest takes too long;
            nothing is changed then.
        UsageError, BackendError, BundleError: as of `build_engine`.
    """
    place = place_to_build(bundle, key)
    library_of(bundle.manifest.target)
    need_gpu()
    compiled = partial(
        compile_engine,
        timing_cache=timing_cache_beside(place),
        options=options,
        on_progress=on_progress,
    )
    with TemporaryDirectory(prefix="effnet-edge-build-") as folder:
        trial = _Trial(bundle, compiled, Path(folder), on_stage, on_progress)
        chosen, contenders = trial.chosen(max_seconds)
        built, choice = trial.built[chosen], Choice(contenders, chosen)
        with BundleWriter(place) as writer:
            now = as_it_is_now(bundle, place, key)
            return _write_chosen(now, built, choice, writer, key)


def loss_of(contender: Contender, output: OutputKind) -> float:
    """What it loses, by `divergence_kind`, in its unit; NaN where that was not measured."""
    kind = divergence_kind(output)
    measure = limited_measure(kind.limit, output)
    value = None if measure is None else contender.loss.value(measure.key)
    return math.nan if value is None else in_unit(kind, value)


class _Trial:
    """Builds the engines; `built` are the bundles of those that hold their answers, by name."""

    def __init__(
        self,
        bundle: Bundle,
        compiled: Callable[[Bundle], tuple[EngineRecord, bytes]],
        folder: Path,
        on_stage: OnStage,
        on_progress: Progress,
    ) -> None:
        assert bundle.manifest.choice is not None
        self.built: dict[str, Bundle] = {}
        self._bundle = bundle
        self._choice = bundle.manifest.choice
        self._compiled = compiled
        self._folder = folder
        self._on_stage = on_stage
        self._on_progress = on_progress

    def chosen(self, max_seconds: float | None) -> tuple[str, tuple[Contender, ...]]:
        """The name of the one to keep, and what came of all of them; raises GateError."""
        output = self._bundle.manifest.output.kind
        tried = [self._tried(each) for each in self._choice.contenders]
        if not self.built:
            reasons = "; ".join(f"{each.name}: {each.problem}" for each in tried)
            raise GateError(f"{self._bundle.path}: none of its graphs could be built: {reasons}")
        self._on_stage("time", None)
        seconds = seconds_in_turns(self.built, self._on_progress)
        measured = [
            Measured(each.name, loss_of(each, output), tuple(seconds[each.name]))
            for each in tried
            if each.name in seconds
        ]
        allowed = math.inf if max_seconds is None else max_seconds
        measured.sort(key=lambda each: each.median)
        within = [each for each in measured if each.median <= allowed]
        if not within:
            first = measured[0]
            raise GateError(
                f"{self._bundle.path}: the fastest, {first.name}, takes {1e3 * first.median:.3g} "
                f"ms, above the {1e3 * allowed:g} ms allowed: allow more, or tune with a larger "
                "loss"
            )
        best = fastest(within) or within[0]
        latencies = {each.name: _latency(each) for each in measured}
        return best.name, tuple(
            replace(each, graph=None, latency=latencies.get(each.name)) for each in tried
        )

    def _tried(self, contender: Contender) -> Contender:
        """Build its engine and check it; with the problem, where there is one."""
        try:
            self.built[contender.name] = self._build(contender)
        except (BackendError, BundleError, GateError, OSError, MemoryError) as error:
            return replace(contender, problem=str(error) or type(error).__name__)
        return contender

    def _build(self, contender: Contender) -> Bundle:
        name, bundle = contender.name, self._bundle
        self._on_stage("build", name)
        alone = bundle.with_one_graph(contender)
        record, plan = self._compiled(alone)
        # The name is the manifest's, and no path.
        with BundleWriter(self._folder / f"{self._choice.contenders.index(contender)}") as writer:
            return write_engine(alone, record, plan, writer)


def _latency(measured: Measured) -> Latency:
    return Latency(len(measured.seconds), measured.least, measured.median, measured.middle_half)


def _write_chosen(
    bundle: Bundle, built: Bundle, choice: Choice, writer: BundleWriter, key: SigningKey | None
) -> Bundle:
    manifest = replace(built.manifest, choice=choice)
    before, after = bundle.manifest.files, manifest.files
    added = {name: after[name] for name in after.keys() - before.keys()}
    for name in manifest.files:
        if name == SBOM_FILE:
            bill = next_bill(bundle.read(name), manifest, before.keys() - after.keys(), added)
            (writer.staging / name).write_text(bill, encoding="utf-8")
        elif name != manifest.labels:
            (writer.staging / name).write_bytes(built.read(name))
    return writer.commit(manifest, bundle.labels, key)
