"""Runs the real commands, for tests and fixtures.

Quick tests fork them where the large libraries are imported already; with --slow, or where a test
has wishes for the process, each starts afresh, as a person starts it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from forked_commands import run_forked
from once import AFRESH, made_once

if TYPE_CHECKING:
    import pytest

EFFNET_EDGE = str(Path(sys.executable).with_name("effnet-edge"))

Run = Callable[..., subprocess.CompletedProcess[str]]


def run_command(
    *arguments: object, cwd: Path, environment: dict[str, str] | None = None, **options: object
) -> subprocess.CompletedProcess:
    command = [EFFNET_EDGE, *map(str, arguments)]
    variables = {**os.environ, "NO_COLOR": "1", **(environment or {})}
    if not (options or environment) and AFRESH not in os.environ:
        return run_forked(command, cwd, variables)
    return subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=variables,
        **options,
    )


def error_lines(stderr: str) -> list[str]:
    """What is wrong; all else that a command said on the way is one of the lines before."""
    lines = stderr.splitlines()
    errors = [line for line in lines if line.startswith("effnet-edge: error: ")]
    assert lines[-len(errors) :] == errors or not errors
    assert len(lines) - len(errors) <= 1, stderr
    return errors


def exported(factory: pytest.TempPathFactory, name: str, *options: str) -> Path:
    def export(folder: Path) -> None:
        completed = run_command("export", "b0", *options, "-o", "bundle", cwd=folder)
        assert completed.returncode == 0, completed.stderr

    return made_once(factory, name, export, "bundle")
