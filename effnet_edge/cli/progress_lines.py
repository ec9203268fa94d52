"""How far long work is, in a line now and then: for logs and pipes, where no bar can be drawn."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY_SECONDS = 15.0


class ProgressLines:
    """Tells a line at most every `EVERY_SECONDS`, and none of work that is over sooner.

    Args:
        tell: is given each line.
        clock: gives seconds.
    """

    def __init__(
        self, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._part, self._first = "", 0
        self._started = self._told = clock()

    def update(self, part: str, done: int, total: int) -> None:
        """`done` of `total` steps of a part are done; the time left is reckoned for each part.

        Where the total is not known, 0, only what is done is told.
        """
        now = self._clock()
        if part != self._part:
            # What was done before is not timed: nobody told when it began.
            self._part, self._first, self._started = part, done, now
        if now - self._told < EVERY_SECONDS or 0 < total <= done:
            return
        self._told = now
        if not total:
            self._tell(f"{part}: {done} done")
            return
        timed = done - self._first
        left = (now - self._started) * (total - done) / timed if timed else 0.0
        self._tell(f"{part}: {done} of {total}{told_left(left)}")


def told_left(seconds: float) -> str:
    """The time left behind a comma, for the end of a line; nothing below a second."""
    if seconds < 1:
        return ""
    if seconds < 90:
        return f", about {seconds:.0f} s left"
    return f", about {seconds / 60:.0f} min left"
