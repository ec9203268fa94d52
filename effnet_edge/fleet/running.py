"""Runs jobs over nodes of several kinds: each is answered once, whatever happens to the nodes."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from effnet_edge.errors import EffnetEdgeError
from effnet_edge.fleet.package import Package

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from effnet_edge.fleet.orders import Job
    from effnet_edge.progress import Steps

_POLL_SECONDS = 1.0
_TOLD_REASONS = 3


@dataclass(frozen=True)
class Lost:
    """A job of which nothing came back.

    Attributes:
        reason: why, in a line.
        final: it would be so again.
        unreached: the node had not begun: it is none of the job's tries, and as the cluster has
            a node less, there is an end to that.
    """

    reason: str
    final: bool = False
    unreached: bool = False


class Cluster(Protocol):
    """Nodes of several kinds, each of which does one job at a time."""

    @property
    def patience(self) -> float:
        """How many seconds a kind may be without any node before its jobs are given up."""

    def nodes(self, kind: str) -> int:
        """How many nodes of a kind there are now, at work or not."""

    def start(self, job: Job, order: Package) -> None:
        """Give the job to a free node of its kind; it is not waited for."""

    def wait(self, seconds: float) -> tuple[str, bytes | Lost] | None:
        """A job that has ended: its key, and what its node sent; None if none does in that time."""

    def close(self) -> None:
        """End what is still running."""


@dataclass(frozen=True)
class Failure:
    """A job that cannot be done: the error in a line, and the node that says so, if one does."""

    reason: str
    node: str | None = None


Answer: TypeAlias = Package | Failure
"""What came of a job."""


class Run:
    """One run of jobs.

    Args:
        retries: how often a job that was lost is given to a node again, not counting the times when
            the node was not reached.
        done: is called once for every job with what came of it, and gives the jobs that follow.
        progress: is told how many jobs are done, and how many there are.
        say: is told in a line what was lost and is tried again.
    """

    def __init__(
        self,
        cluster: Cluster,
        retries: int,
        done: Callable[[Job, Answer], Iterable[Job]],
        progress: Steps,
        say: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._retries = cluster, retries
        self._done, self._progress, self._say, self._clock = done, progress, say, clock
        self._waiting: deque[Job] = deque()
        self._under_way: dict[str, Job] = {}
        self._losses: Counter[str] = Counter()
        self._nodes_gone: defaultdict[str, list[str]] = defaultdict(list)
        self._absent_since: dict[str, float] = {}
        self._finished = 0

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all jobs and those that follow from them."""
        self._waiting.extend(jobs)
        while self._waiting or self._under_way:
            self._tell()
            self._start()
            self._give_up_absent_kinds()
            if not self._under_way and not self._waiting:
                break
            ended = self._cluster.wait(_POLL_SECONDS)
            if ended is not None:
                self._end(*ended)
        self._tell()

    def _tell(self) -> None:
        self._progress(self._finished, self._finished + len(self._waiting) + len(self._under_way))

    def _start(self) -> None:
        busy = Counter(job.kind for job in self._under_way.values())
        for job in list(self._waiting):
            if busy[job.kind] >= self._cluster.nodes(job.kind):
                continue
            self._waiting.remove(job)
            try:
                order = job.order()
            except (EffnetEdgeError, OSError) as error:
                self._answer(job, Failure(str(error)))
                continue
            busy[job.kind] += 1
            self._under_way[job.key] = job
            self._cluster.start(job, order)

    def _end(self, key: str, outcome: bytes | Lost) -> None:
        job = self._under_way.pop(key, None)
        if job is None:  # it was answered already
            return
        if isinstance(outcome, Lost):
            self._lose(job, outcome)
            return
        try:
            result = Package.unpack(outcome, f"the node of kind {job.kind}")
        except EffnetEdgeError as error:
            self._lose(job, Lost(str(error)))
            return
        if result.document.get("key") != key:
            self._lose(job, Lost("the node answered another job"))
        elif (reason := result.document.get("error")) is not None:
            self._answer(job, Failure(str(reason), str(result.document.get("node"))))
        else:
            self._answer(job, result)

    def _lose(self, job: Job, lost: Lost) -> None:
        self._losses[job.key] += not lost.unreached
        tries = self._losses[job.key]
        any_left = self._cluster.nodes(job.kind) > 0
        if lost.unreached or not any_left:
            self._nodes_gone[job.kind].append(lost.reason)
        if lost.final:
            self._answer(job, Failure(lost.reason))
            return
        if tries <= self._retries:
            told = "lost, tried again" if any_left else "lost"
            self._say(f"{job.task} {job.bundle} on {job.kind}: {told}: {lost.reason}")
            self._waiting.append(job)
            return
        self._answer(job, Failure(f"lost {_times(tries)}: {lost.reason}"))

    def _give_up_absent_kinds(self) -> None:
        now = self._clock()
        for kind in {job.kind for job in self._waiting}:
            if self._cluster.nodes(kind):
                self._absent_since.pop(kind, None)
            elif now - self._absent_since.setdefault(kind, now) >= self._cluster.patience:
                for job in [job for job in self._waiting if job.kind == kind]:
                    self._waiting.remove(job)
                    self._answer(job, Failure(_no_node(kind, self._nodes_gone[kind])))

    def _answer(self, job: Job, answer: Answer) -> None:
        self._finished += 1
        self._waiting.extend(self._done(job, answer))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times, at last"


def _no_node(kind: str, reasons: Sequence[str]) -> str:
    """That there is none, and why, as far as a line can tell it."""
    different = list(dict.fromkeys(reasons))
    why = "; ".join(different[:_TOLD_REASONS])
    if len(different) > _TOLD_REASONS:
        why += f"; and {len(different) - _TOLD_REASONS} more"
    left = f"no node of kind {kind} is left" + (f" ({why})" if why else "")
    return f"{left}: the same command goes on once there is one"
