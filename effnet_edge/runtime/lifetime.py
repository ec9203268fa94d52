"""The life of a runner, as a state machine.

    loaded ── close, or the interpreter's end ──▶ closing ── the last work is done ──▶ closed
       └──── in the child process of a fork, from any of the three ────▶ forked

A KeyboardInterrupt may come between any two steps of Python, also within `finally` and `__exit__`
of our own. So nothing here is counted up and down. Whoever works in a runner holds a lock, its
visit, by `with`, which CPython takes and gives back as one step with the entering and leaving; who
waits for the work waits for these locks. The other facts are flags that are only ever set.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import weakref
from enum import Enum
from typing import TYPE_CHECKING

from effnet_edge.errors import BackendError
from effnet_edge.runtime.threads import start_thread
from effnet_edge.runtime.workers import InterruptibleFuture, forget_worker, in_worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from effnet_edge.runtime.workers import Workers

# A daemon thread that comes when the interpreter ends is held back so long, in seconds: it ends
# with the process, without a traceback, unless somebody still waits for it.
_DAEMON_PATIENCE = 5.0
# How soon, in seconds, it is seen that somebody who is waited for was turned away.
_LOOK_AGAIN = 0.05


class State(Enum):
    """Where in its life a runner is."""

    LOADED = "loaded"
    CLOSING = "closing"
    CLOSED = "closed"
    FORKED = "forked"


class Visits:
    """Who is inside, each by a lock that is held as long as the visit lasts.

    Attributes:
        ever: whether anybody was inside yet.
    """

    def __init__(self) -> None:
        self._threads: dict[threading.Lock, int] = {}
        self.ever = False

    def add(self, visit: threading.Lock) -> None:
        """Count in the calling thread, which holds `visit`; letting go of it is the way out."""
        for gone in [other for other in list(self._threads) if not other.locked()]:
            self._threads.pop(gone, None)
        self._threads[visit] = threading.get_ident()
        self.ever = True

    def of_this_thread(self) -> bool:
        """Whether the calling thread is inside itself."""
        here = threading.get_ident()
        return any(
            visit.locked() for visit, thread in list(self._threads.items()) if thread == here
        )

    def turn_away(self, visit: threading.Lock) -> None:
        """Count the visit out again although its lock is still held: nothing will be done in it."""
        self._threads.pop(visit, None)

    def wait(self) -> None:
        """Wait until all who are inside now have left or were turned away."""
        for visit in list(self._threads):
            while visit in self._threads and not visit.acquire(timeout=_LOOK_AGAIN):
                pass
            self.turn_away(visit)


class Lifetime:
    """Lets work in while the runner is loaded, and releases the engine when the last is out.

    Args:
        source: the bundle's path, for messages.
        workers: the threads of `submit`, whose work is waited for, too.
        release: releases the engine; called once, when nothing is running.
    """

    def __init__(self, source: Path, workers: Workers, release: Callable[[], None]) -> None:
        self._source, self._workers, self._release = source, workers, release
        self._visits = Visits()
        self._closing = self._closed = self._forked = False
        self._finishing = threading.Lock()
        _LIVES[id(self)] = self

    @property
    def state(self) -> State:
        """Where in its life the runner is now."""
        if self._forked:
            return State.FORKED
        if self._closed:
            return State.CLOSED
        return State.CLOSING if self._closing else State.LOADED

    def enter(self, visit: threading.Lock) -> None:
        """Let the calling thread in, which holds `visit` until it is out again.

        Raises:
            BackendError: the runner is not loaded any more, or was loaded before a fork.
        """
        # First in and then asked: whoever closes meanwhile sees this visit, or this sees the flag.
        self._visits.add(visit)
        if self.state is not State.LOADED:
            self._visits.turn_away(visit)
            hold_back_at_the_end()
            raise BackendError(self._refusal())

    def close(self) -> None:
        """Let nothing more in, wait for what is under way, and release the engine.

        The end is brought about by a thread of its own, so that an interrupt here stops the waiting
        alone. Who could wait for himself does not wait: a thread within a runner (a signal handler,
        a finalizer) or one that delivers futures (a callback).
        """
        self._closing = True
        if self.state is not State.CLOSING:
            return
        outcome: InterruptibleFuture[None] = InterruptibleFuture()
        start_thread(self._finish_for, outcome)
        if not in_worker() and not any(life.is_visited_here() for life in _living()):
            outcome.result()

    def is_visited_here(self) -> bool:
        """Whether the calling thread is within the runner."""
        return not self._forked and self._visits.of_this_thread()

    def let_nothing_in(self) -> None:
        """Refuse what comes from now on; `finish` waits for the rest."""
        self._closing = True

    def finish(self) -> None:
        """Wait for the work under way and release the engine, unless that is done already."""
        if self._forked:
            return
        with self._finishing:
            if not self._closed:
                self._visits.wait()
                self._workers.drain()
                try:
                    self._release()
                finally:
                    self._closed = True
        self._workers.stop()

    def fork(self) -> None:
        """Tell, in the child process, that the engine's threads stayed behind in the parent."""
        self._forked = True
        # The library's destructors would wait for those threads.
        keep_for_ever(self._release)
        self._workers.fail_all(BackendError(self._refusal()))

    def _finish_for(self, outcome: InterruptibleFuture[None]) -> None:
        try:
            self.finish()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    def _refusal(self) -> str:
        if self._forked:
            return (
                f"the runner of {self._source} was loaded before this process was forked: "
                "load the bundle in the child process"
            )
        return f"the runner of {self._source} is closed: load the bundle again"


_LIVES: weakref.WeakValueDictionary[int, Lifetime] = weakref.WeakValueDictionary()
_loads = Visits()
_interpreter_ends = False


def _living() -> list[Lifetime]:
    # In one step of C: a WeakSet is iterated in Python, and another thread may load meanwhile.
    return [life for reference in _LIVES.valuerefs() if (life := reference()) is not None]


def enter_loading(visit: threading.Lock) -> None:
    """Let the interpreter's end wait for the calling thread, which holds `visit` and loads.

    Raises:
        BackendError: the interpreter is ending.
    """
    _loads.add(visit)
    if _interpreter_ends:
        _loads.turn_away(visit)
        hold_back_at_the_end()
        raise BackendError("the interpreter is ending: no bundle can be loaded any more")


def hold_back_at_the_end() -> None:
    """Let a daemon thread sleep while the interpreter ends; other threads, or earlier, go on."""
    if _interpreter_ends and threading.get_ident() != threading.main_thread().ident:
        forever = threading.Lock()
        with forever:
            forever.acquire(timeout=_DAEMON_PATIENCE)


def keep_for_ever(thing: object) -> None:
    """Never destroy `thing`, not even when the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _exit_without_destructors() -> None:
    """Let this process end before the libraries' own handlers run, with the exit code that it has.

    In a forked child these wait for threads that stayed in the parent. glibc calls what is
    registered last first, after Python has flushed its files.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)


def _end_of_the_interpreter() -> None:
    """Close every runner.

    A daemon thread that is in a library's C++ when Python is torn down is unwound through it, which
    aborts the process.
    """
    global _interpreter_ends  # noqa: PLW0603
    _interpreter_ends = True
    _loads.wait()
    lives = _living()
    for life in lives:
        life.let_nothing_in()
    for life in lives:
        life.finish()


def _in_the_child_of_a_fork() -> None:
    global _loads  # noqa: PLW0603
    forget_worker()
    if _loads.ever:
        _exit_without_destructors()
    _loads = Visits()
    for life in _living():
        life.fork()


atexit.register(_end_of_the_interpreter)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_the_child_of_a_fork)
