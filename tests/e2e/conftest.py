"""The real commands, as a person runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from once import made_once

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


@pytest.fixture
def effnet_edge(tmp_path: Path) -> Run:
    """Runs `effnet-edge ARGUMENTS…` in an empty directory."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, cwd=tmp_path, **options)

    return run


def exported(factory: pytest.TempPathFactory, name: str, *options: str) -> Path:
    def export(folder: Path) -> None:
        completed = run_command("export", "b0", *options, "-o", "bundle", cwd=folder)
        assert completed.returncode == 0, completed.stderr

    return made_once(factory, name, export, "bundle")


@pytest.fixture(scope="session")
def openvino_fp16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory, "openvino-fp16", "--target", "openvino")


@pytest.fixture(scope="session")
def openvino_fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ("--target", "openvino", "--fp32", "--batch", "1:4:8")
    return exported(tmp_path_factory, "openvino-fp32", *options)


@pytest.fixture(scope="session")
def onnxruntime_fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory, "onnxruntime-fp32", "--target", "onnxruntime")


@pytest.fixture(scope="session")
def openvino_int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """At a small resolution and on few pictures, to be quick."""
    options = ("--int8", "--resolution", "160", "--calibration-size", "40")
    return exported(tmp_path_factory, "openvino-int8", *options)


@pytest.fixture(scope="session")
def espresso() -> Path:
    return Path(__file__).parents[2] / "examples" / "espresso.jpg"
