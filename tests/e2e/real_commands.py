"""Runs the real commands, for tests and fixtures."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from once import made_once

if TYPE_CHECKING:
    import pytest

EFFNET_EDGE = str(Path(sys.executable).with_name("effnet-edge"))

Run = Callable[..., subprocess.CompletedProcess[str]]


def run_command(*arguments: object, cwd: Path, **options: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [EFFNET_EDGE, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
        **options,
    )


def exported(factory: pytest.TempPathFactory, name: str, *options: str) -> Path:
    def export(folder: Path) -> None:
        completed = run_command("export", "b0", *options, "-o", "bundle", cwd=folder)
        assert completed.returncode == 0, completed.stderr

    return made_once(factory, name, export, "bundle")
