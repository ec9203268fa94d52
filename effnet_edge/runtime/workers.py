"""The threads behind `EngineRunner.submit`.

Not an executor of the standard library: an interrupt within its `submit` leaves a batch that is
never run or a thread that is never joined, a callback that waits holds its thread back, and
its threads cannot end it. Here what is under way is one dictionary, changed by single steps of C;
waking somebody is a hint that may be given twice, and who sleeps looks again by himself.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from effnet_edge.runtime.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = TypeVar("Answer")

_QUEUED_PER_SLOT = 2
# Seconds after which a sleeper looks again, should an interrupt have swallowed his waking.
_NAP = 0.5

_here = threading.local()


def in_worker() -> bool:
    """Whether the calling thread is one that runs submitted work and its futures' callbacks."""
    return bool(getattr(_here, "is_worker", False))


def forget_worker() -> None:
    """Make the calling thread an ordinary one, if it was forked from a worker."""
    _here.is_worker = False


class _Condition(threading.Condition):
    """A condition that an interrupt (Ctrl-C) leaves as it should be.

    It is entered in one step of C: `threading.Condition.__enter__` is Python, and an interrupt
    that comes when it has the lock, and before the `with` block has begun, leaves the lock held for
    ever. One that comes when `wait` has just let go of it ends in a RuntimeError instead.
    """

    def __init__(self) -> None:
        self._entered = threading.RLock()
        super().__init__(self._entered)

    @property
    def __enter__(self) -> Callable[[], bool]:
        return self._entered.__enter__

    @property
    def __exit__(self) -> Callable[..., None]:  # noqa: PLE0302
        return self._entered.__exit__

    def wait(self, timeout: float | None = None) -> bool:
        """Wait to be notified; whatever is raised meanwhile, the lock is held afterwards."""
        try:
            return super().wait(timeout)
        except BaseException:
            with suppress(RuntimeError):
                self._entered.release()
            self._entered.acquire()
            raise


class InterruptibleFuture(Future[Answer]):
    """A future whose `result` may be interrupted without holding up whoever gives the answer."""

    def __init__(self) -> None:
        super().__init__()
        self._condition = _Condition()


class _Job:
    """One call to make; whoever gets `claim` makes it, or tells that it was cancelled."""

    def __init__(self, future: InterruptibleFuture[Any], call: Callable[[], Any]) -> None:
        self.future = future
        self.claim = threading.Lock()
        self._call: Callable[[], Any] | None = call
        self._outcome: tuple[Any, BaseException | None] = (None, None)

    def run(self) -> None:
        """Make the call, unless it was cancelled."""
        call, self._call = self._call, None
        if call is not None and self.future.set_running_or_notify_cancel():
            self._outcome = _outcome_of(call)

    def deliver(self) -> None:
        """Give the answer to the future, whose callbacks are called here."""
        (answer, error), self._outcome = self._outcome, (None, None)
        if self.future.cancelled():
            return
        if error is None:
            self.future.set_result(answer)
        else:
            self.future.set_exception(error)


class Workers:
    """Makes calls in the order in which they came, `most` of them at once.

    Twice as many may be under way; who brings more waits, but for the callbacks of futures, which
    might wait for themselves. A thread that delivers a future lets another go on in its place, so a
    callback may wait for what it submits.
    """

    def __init__(self, most: int) -> None:
        self._slots = [threading.Lock() for _ in range(most)]
        self._jobs: dict[object, _Job] = {}
        self._entrance = threading.RLock()
        self._sleepers: deque[threading.Lock] = deque()
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._alive: dict[threading.Lock, None] = {}
        self._resting: set[threading.Lock] = set()
        self._stopped = False

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Have `call` made by and by; the future gives what it gives, or raises what it raises."""
        if in_worker():
            return self._add(call)
        with self._entrance:
            self._wait_until(lambda: len(self._jobs) < _QUEUED_PER_SLOT * len(self._slots))
            return self._add(call)

    def drain(self) -> None:
        """Wait until nothing is under way."""
        self._wait_until(lambda: not self._jobs)

    def stop(self) -> None:
        """End the threads, and wait for the callbacks that they are in."""
        self._stopped = True
        threads = list(self._alive)
        for _ in threads:
            self._wakes.put(None)
        for presence in threads:
            with presence:
                pass

    def fail_all(self, error: Exception) -> None:
        """Let every future under way raise `error`, in a process that has none of the threads."""
        for job in list(self._jobs.values()):
            # Somebody may have held the future's lock when the process was forked: a fresh one.
            InterruptibleFuture.__init__(job.future)
            job.future.set_exception(error)
        self._jobs.clear()

    def __del__(self) -> None:
        # Resting threads know this object weakly and look whether it is still there. There are
        # none if making it was interrupted.
        for _ in getattr(self, "_alive", ()):
            self._wakes.put(None)

    def _add(self, call: Callable[[], Any]) -> Future[Any]:
        future: InterruptibleFuture[Any] = InterruptibleFuture()
        key = object()
        future.add_done_callback(partial(self._end, key))
        self._jobs[key] = _Job(future, call)
        self._wake_another()
        return future

    def _end(self, key: object, future: Future[Any]) -> None:
        """Take a job out that is done or cancelled; the first callback of every future."""
        job = self._jobs.pop(key, None)
        if job is not None and future.cancelled() and job.claim.acquire(blocking=False):
            future.set_running_or_notify_cancel()
        while self._sleepers:
            _ring(self._sleepers)

    def _wait_until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            sleeper = threading.Lock()
            sleeper.acquire()
            self._sleepers.append(sleeper)
            # Asked again: what changed before the sleeper was to be seen rang for nobody.
            if is_so():
                return
            self._wake_another()
            sleeper.acquire(timeout=_NAP)

    def _wake_another(self) -> None:
        """Have somebody run what waits, in a new thread if nobody rests.

        Where every slot is taken, whoever has one looks again after letting go of it.
        """
        if not self._waiting() or all(slot.locked() for slot in self._slots):
            return
        self._wakes.put(None)
        if not self._resting:
            start_thread(_work, weakref.ref(self), self._wakes, self._alive, self._resting)

    def _serve(self) -> None:
        """Run jobs until there are none, or others have all the slots and will see to the rest."""
        while (slot := self._free_slot()) is not None:
            job = None
            try:
                try:
                    job = self._next()
                    if job is not None:
                        self._wake_another()
                        job.run()
                finally:
                    slot.release()
                if job is not None:
                    self._wake_another()
                    job.deliver()
            except BaseException as error:
                # Somebody raised it in this thread from outside: its job must not stay behind.
                if job is not None and not job.future.done():
                    job.future.set_exception(error)
                raise
            if job is None and not self._waiting():
                # Asked after the slot was let go: who came before and found it taken is served.
                return

    def _free_slot(self) -> threading.Lock | None:
        return next((slot for slot in self._slots if slot.acquire(blocking=False)), None)

    def _next(self) -> _Job | None:
        jobs = list(self._jobs.values())
        return next((job for job in jobs if job.claim.acquire(blocking=False)), None)

    def _waiting(self) -> bool:
        return any(not job.claim.locked() for job in list(self._jobs.values()))


def _work(
    reference: weakref.ref[Workers],
    wakes: SimpleQueue[None],
    alive: dict[threading.Lock, None],
    resting: set[threading.Lock],
) -> None:
    """Serve and rest in turn, while the workers are there and nobody else rests already."""
    _here.is_worker = True
    presence = threading.Lock()
    with presence:
        alive[presence] = None
        while _serves_on(reference) and not resting:
            resting.add(presence)
            wakes.get()
            resting.discard(presence)
    alive.pop(presence, None)


def _serves_on(reference: weakref.ref[Workers]) -> bool:
    workers = reference()
    if workers is None or workers._stopped:
        return False
    workers._serve()
    return not workers._stopped


def _outcome_of(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return call(), None
    except BaseException as error:
        return None, error


def _ring(sleepers: deque[threading.Lock]) -> None:
    try:
        sleepers.popleft().release()
    except (IndexError, RuntimeError):
        # Another rang, or the sleeper was interrupted and is gone.
        return
