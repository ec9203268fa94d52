"""How far a long stage of the calibration is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told how far a stage is."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` steps of the stage called `stage` are done."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
