"""How a command ends before its time: by Ctrl-C, or as nobody reads what it prints."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from effnet_edge.errors import EffnetEdgeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

READER_LEFT = 128 + 13
"""The exit code where the reader of the output left before the end, as of whom SIGPIPE ends."""

_BOUNCE_SECONDS = 1.0


class ReaderLeftError(Exception):
    """Nobody reads standard output any more; no OSError, which click makes an exit code of."""


class InterruptionError(EffnetEdgeError):
    """Ctrl-C came, and the text says what is kept."""

    exit_code = INTERRUPTED


class CtrlC:
    """A handler of SIGINT that lets a command end in order.

    The first one raises KeyboardInterrupt. What follows within a second is the same hand, or the
    same signal by way of another process, and must not cut off what the first one set going.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None

    @classmethod
    def install(cls) -> None:
        """Take the place of Python's own handler, where that is in place."""
        own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if own and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, cls())

    @staticmethod
    def ignore() -> None:
        """Let no further one in: what is left to do is short, and has to be whole."""
        if isinstance(signal.getsignal(signal.SIGINT), CtrlC):
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    @staticmethod
    def end_at_once(code: int) -> None:
        """Let a further one end the process: everything is written."""
        if isinstance(signal.getsignal(signal.SIGINT), CtrlC):
            signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(code))

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Be told of one."""
        now = self._clock()
        if self._last is not None and now - self._last < _BOUNCE_SECONDS:
            return
        self._last = now
        raise KeyboardInterrupt
