"""What reaches the disk, and in which order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def recorded_events(monkeypatch: pytest.MonkeyPatch, rename: str) -> list[str]:
    """Names of files as they are synced, and "rename" for each call of `Path.<rename>`."""
    events: list[str] = []
    fsync, real_rename = os.fsync, getattr(Path, rename)

    def record_fsync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def record_rename(self: Path, target: Path) -> Path:
        events.append("rename")
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, rename, record_rename)
    return events
