"""Tells which stage of an export begins, and how long each took."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    OnStage = Callable[[str], None]


class StageClock:
    """Times stages; `seconds` has those that ended, by their name."""

    def __init__(self, on_stage: OnStage) -> None:
        self.seconds: dict[str, float] = {}
        self._on_stage = on_stage

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Call `on_stage` with the name, and time what the block does."""
        self._on_stage(name)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started
