"""The real commands, as a person runs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from real_commands import Run, exported, run_command

if TYPE_CHECKING:
    import subprocess


@pytest.fixture
def effnet_edge(tmp_path: Path) -> Run:
    """Runs `effnet-edge ARGUMENTS…` in an empty directory."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, cwd=tmp_path, **options)

    return run


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
