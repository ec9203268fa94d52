"""A plan being carried out: which jobs are done already, what follows from one, and all rows."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from effnet_edge import nonfinite
from effnet_edge.bundle import Bundle, utc_now
from effnet_edge.bundle.places import PARTIAL, sibling
from effnet_edge.errors import BundleError, EffnetEdgeError
from effnet_edge.fleet.checking import BUNDLE
from effnet_edge.fleet.named_files import NamedFiles
from effnet_edge.fleet.orders import CHECK, EXPORT, HashedBundle, check_job, export_job
from effnet_edge.fleet.results import failed_row, row_of
from effnet_edge.fleet.running import Failure
from effnet_edge.parity.measures.gate_file import gate_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from effnet_edge.fleet.journal import Journal
    from effnet_edge.fleet.orders import Job
    from effnet_edge.fleet.package import Package
    from effnet_edge.fleet.plan import Plan
    from effnet_edge.fleet.plan_sweeps import Export
    from effnet_edge.fleet.question import Question
    from effnet_edge.fleet.results import Result, Row
    from effnet_edge.fleet.running import Answer

GENERATOR = "effnet-edge fleet"
SCHEMA_VERSION = 1
_BUNDLES = "bundles"


@dataclass
class Entry:
    """One line of the table: what came of a bundle on a kind, or of its export."""

    bundle: str
    kind: str
    task: str
    result: Result | None = None
    error: Failure | None = None

    def row(self) -> Row:
        """As a person sees it."""
        if self.result is not None:
            return row_of(self.bundle, self.kind, self.result)
        error = self.error or Failure("not done yet: the same command goes on")
        return failed_row(self.bundle, self.kind, self.task, error.reason, error.node)


@dataclass
class Campaign:
    """One run of a plan.

    Args:
        ask: gives what nodes are asked of a bundle; what it raises becomes the bundle's rows.
    """

    plan: Plan
    journal: Journal
    ask: Callable[[Bundle], Question]
    _entries: dict[tuple[str, str, str], Entry] = field(default_factory=dict)
    _kept: int = 0

    def __post_init__(self) -> None:
        """Enter all that the plan asks for: whenever a run ends, what it did not do is told."""
        for export in self.plan.exports:
            self._enter(export.name, export.on, EXPORT)
        for bundle in self.plan.bundles:
            for kind in bundle.kinds:
                self._enter(bundle.path.name, kind, CHECK)

    @property
    def kept(self) -> int:
        """How many checks were done by earlier runs."""
        return self._kept

    def jobs(self) -> list[Job]:
        """What is to be done: exports first, as other jobs follow from them."""
        named = NamedFiles()
        jobs = [job for export in self.plan.exports for job in self._exported(export, named)]
        for bundle in self.plan.bundles:
            jobs += self._checks(bundle.path, bundle.kinds)
        return jobs

    def done(self, job: Job, answer: Answer) -> list[Job]:
        """Keep what came of a job; gives the jobs that follow from it."""
        if isinstance(answer, Failure):
            self._enter(job.bundle, job.kind, job.task).error = answer
            return []
        if job.task == EXPORT:
            return self._take_export(job, answer)
        entry = self._enter(job.bundle, job.kind, CHECK)
        result = {"bundle": job.bundle, "kind": job.kind, **answer.document}
        try:
            row_of(job.bundle, job.kind, result)
        except EffnetEdgeError as error:
            entry.error = Failure(str(error))
            return []
        self.journal.add(job.key, result)
        entry.result = result
        return []

    def rows(self) -> list[Row]:
        """In the order of the plan."""
        return [entry.row() for entry in self._in_order()]

    def document(self) -> dict[str, Any]:
        """Everything as JSON values; `passed` is null where no limit was set and nothing failed."""
        jobs = [
            {
                "bundle": entry.bundle,
                "kind": entry.kind,
                "task": entry.task,
                "state": entry.row().state,
                "error": entry.error and entry.error.reason,
                "node": entry.error and entry.error.node,
                "result": entry.result,
            }
            for entry in self._in_order()
        ]
        states = {job["state"] for job in jobs}
        failed = bool(states & {"failed", "error"})
        document: dict[str, Any] = nonfinite.encode(
            {
                "generator": GENERATOR,
                "schema": SCHEMA_VERSION,
                "created": utc_now(),
                "plan": str(self.plan.path),
                "gate": gate_of(dict(self.plan.limits)).describe(),
                "passed": False if failed else True if states & {"passed", "unsure"} else None,
                "jobs": jobs,
            }
        )
        return document

    def _exported(self, export: Export, named: NamedFiles) -> list[Job]:
        """The export, or what follows from it if its bundle is here already."""
        job = export_job(export, export.on, named)
        place, made = self._place(export.name), self.journal.result(job.key)
        here = None if made is None else _as_exported(place)
        if here and made and made.get("manifest_sha256") == here.manifest_sha256:
            self._entries.pop((export.name, export.on, EXPORT))
            return self._checks(place, export.kinds, here)
        return [job]

    def _take_export(self, job: Job, answer: Package) -> list[Job]:
        place = self._place(job.bundle)
        try:
            _put(answer.folder(BUNDLE), place)
            here = HashedBundle.at(place)
        except EffnetEdgeError as error:
            self._enter(job.bundle, job.kind, EXPORT).error = Failure(str(error))
            return []
        self.journal.add(job.key, {"manifest_sha256": here.manifest_sha256})
        self._entries.pop((job.bundle, job.kind, EXPORT), None)
        kinds = next(each.kinds for each in self.plan.exports if each.name == job.bundle)
        return self._checks(place, kinds, here)

    def _checks(
        self, path: Path, kinds: Sequence[str], here: HashedBundle | None = None
    ) -> list[Job]:
        """The checks of a bundle that are still to be done; it is hashed unless that was done."""
        entries = [self._enter(path.name, kind, CHECK) for kind in kinds]
        jobs = []
        try:
            here = here or HashedBundle.at(path)
            question = self.ask(here.bundle)
            for entry in entries:
                job = check_job(here, entry.kind, question, self.plan)
                entry.result = self._earlier(job)
                if entry.result is None:
                    jobs.append(job)
        except EffnetEdgeError as error:
            for entry in entries:
                entry.error = Failure(str(error))
            return []
        return jobs

    def _earlier(self, job: Job) -> Result | None:
        """What an earlier run found; None where that cannot be read."""
        result = self.journal.result(job.key)
        try:
            if result is not None:
                row_of(job.bundle, job.kind, result)
        except EffnetEdgeError:
            return None
        self._kept += result is not None
        return result

    def _enter(self, bundle: str, kind: str, task: str) -> Entry:
        return self._entries.setdefault((bundle, kind, task), Entry(bundle, kind, task))

    def _in_order(self) -> list[Entry]:
        names = [each.path.name for each in self.plan.bundles]
        names += [each.name for each in self.plan.exports]
        return sorted(self._entries.values(), key=lambda entry: names.index(entry.bundle))

    def _place(self, name: str) -> Path:
        return self.journal.folder / _BUNDLES / name


def _as_exported(place: Path) -> HashedBundle | None:
    """The bundle there, all of whose files are what its manifest says; None where there is none."""
    try:
        here = HashedBundle.at(place)
    except EffnetEdgeError:
        return None
    return here if here.is_as_exported else None


def _put(files: dict[str, bytes], place: Path) -> None:
    """Write a bundle that came from a node, in place of an older one, once it has been checked."""
    staging = sibling(place, PARTIAL)
    try:
        staging.mkdir(parents=True)
        for name, content in files.items():
            (staging / name).write_bytes(content)
        Bundle.load(staging)
        shutil.rmtree(place, ignore_errors=True)
        staging.rename(place)
    except OSError as error:
        raise BundleError(f"{place}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
