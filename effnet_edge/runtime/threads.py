"""Threads that begin, whatever happens to whoever starts them."""

from __future__ import annotations

import _thread
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds after which a thread that has not begun is started once more.
_PATIENCE = 0.5


def start_thread(run: Callable[..., None], *arguments: Any) -> None:
    """Have `run(*arguments)` called in a new daemon thread, and return when it has begun.

    Until it has begun, a new thread has its creator's number in CPython 3.10 and 3.11: an exception
    that is raised in the creator from outside (`PyThreadState_SetAsyncExc`) ends the new thread
    before its first step. Nobody would know, and what it was to do would be waited for without end.

    Raises:
        RuntimeError: the system has no thread left.
    """
    claim, begun = threading.Lock(), threading.Lock()
    begun.acquire()
    while True:
        _thread.start_new_thread(_begin, (claim, begun, run, arguments))
        if begun.acquire(timeout=_PATIENCE):
            return


def _begin(
    claim: threading.Lock,
    begun: threading.Lock,
    run: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    # One that was only slow to begin finds the claim of its successor, or that finds this.
    if claim.acquire(blocking=False):
        begun.release()
        run(*arguments)
