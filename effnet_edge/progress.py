"""How long work tells how far it is: the callbacks that a caller may pass."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the name of a part of the work, how much of it is done, and all of it.

In steps, pictures or bytes: whatever the part counts; all of it is 0 where it is not known.
"""

Steps = Callable[[int, int], None]
"""The same for work of one part only: called with what is done and all of it."""


def no_progress(_part: str, _done: int, _total: int) -> None:
    """Tell nobody."""
