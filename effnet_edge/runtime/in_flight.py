"""Counting the work under way, so that closing can wait for it."""

from __future__ import annotations

import threading


class InFlight:
    """A door that work enters and leaves; closing it waits until everyone is out."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._closed = False

    def enter(self) -> bool:
        """Count one more piece of work; False if the door is closed."""
        with self._changed:
            if self._closed:
                return False
            self._count += 1
            return True

    def leave(self) -> None:
        """Count one piece of work less."""
        with self._changed:
            self._count -= 1
            if self._count == 0:
                self._changed.notify_all()

    def close(self) -> bool:
        """Let nothing more in and wait for the rest; True for the one call that closed it."""
        with self._changed:
            first = not self._closed
            self._closed = True
            self._changed.wait_for(lambda: self._count == 0)
            return first
