"""How a command ends before its time: by Ctrl-C, or as nobody reads what it prints."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from effnet_edge.errors import EffnetEdgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import FrameType

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

NOTHING_WRITTEN = "interrupted: no output was written"
"""What is told of a command that Ctrl-C ended before any output had its name."""

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

    One that comes in a block of `held` waits for its end.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self._is_held = False
        self._waits = False

    @classmethod
    def install(cls) -> None:
        """Take the place of Python's own handler, where that is in place."""
        own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if own and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, cls())

    @staticmethod
    def held() -> AbstractContextManager[None]:
        """Let what follows be done whole or not at all; it must be short, and wait for nobody.

        Raises:
            KeyboardInterrupt: at its end, as Ctrl-C came meanwhile.
        """
        handler = signal.getsignal(signal.SIGINT)
        return handler._held() if isinstance(handler, CtrlC) else nullcontext()

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
        if self._is_held:
            self._waits = True
        else:
            raise KeyboardInterrupt

    @contextmanager
    def _held(self) -> Iterator[None]:
        before, self._is_held = self._is_held, True
        try:
            yield
        finally:
            self._is_held = before
            if self._waits and not before:
                self._waits = False
                raise KeyboardInterrupt
