"""The use of TensorRT's Python API, type-checked against the binaries of several versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from binding_stubs import of_tensorrt, of_tensorrt_rtx
from later import quick

import effnet_edge

pytest.importorskip("tensorrt_rtx")

ROOT = Path(effnet_edge.__file__).parent.parent
CHECKED = Path("effnet_edge", "runtime", "tensorrt")
BUILDER = CHECKED / "plan.py"
RUNNER = CHECKED / "engine.py"

# The oldest, JetPack 6.1 and 6.2, JetPack 7, and the newest.
VERSIONS = ("10.0.1", "10.3.0", "10.13.0.35", "11.4.0.106")
NEWEST_PYTHON = {"10.0.1": (3, 12), "10.3.0": (3, 12), "10.13.0.35": (3, 13)}


def complaints(root: Path, stubs: Path) -> list[str]:
    """What mypy finds wrong in the modules that use TensorRT, given those stubs of it."""
    environment = {**os.environ, "MYPYPATH": f"{stubs}{os.pathsep}{root}"}
    options = (
        "--config-file=",
        "--explicit-package-bases",
        "--follow-imports=silent",
        "--disable-error-code=import-untyped",
    )
    completed = subprocess.run(
        [sys.executable, "-m", "mypy", *options, f"--cache-dir={stubs / 'cache'}", str(CHECKED)],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode in (0, 1), completed.stdout + completed.stderr
    lines = completed.stdout.splitlines()
    return [line for line in lines if line.startswith(str(CHECKED)) and ": error:" in line]


def planted(right: str, wrong: str, folder: Path) -> Path:
    """A copy of the package with something in the builder replaced."""
    copy = folder / "planted"
    no_data = shutil.ignore_patterns("*.safetensors", "__pycache__")
    shutil.copytree(ROOT / "effnet_edge", copy / "effnet_edge", ignore=no_data)
    (file,) = (name for name in (BUILDER, RUNNER) if right in (copy / name).read_text())
    text = (copy / file).read_text()
    assert text.count(right) == 1
    (copy / file).write_text(text.replace(right, wrong))
    return copy


@pytest.fixture(scope="module")
def rtx_stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the installed TensorRT-RTX, under both names."""
    folder = tmp_path_factory.mktemp("rtx")
    of_tensorrt_rtx(folder)
    return of_tensorrt_rtx(folder, "tensorrt")


@pytest.mark.slow
def test_the_api_is_that_of_tensorrt_rtx(rtx_stubs: Path) -> None:
    assert complaints(ROOT, rtx_stubs) == []


FAULTS = [
    ("BuilderFlag.VERSION_COMPATIBLE", "BuilderFlag.FP16", '"FP16"'),
    ("config.add_optimization_profile(profile)", "config.add_profile(profile)", "add_profile"),
    ("OnnxParser(network, log.logger)", "OnnxParser(network)", "OnnxParser"),
    ("parser.parse(source.graph)", "parser.parse(12)", '"parse"'),
    ("context.execute_async_v3(stream)", "context.execute_async_v2(stream)", "async_v2"),
    ("context.set_device_memory(scratch, ", "context.set_device_memory(", "set_device_memory"),
    ("self._runtime.DLA_core", "self._runtime.DLA", '"DLA"'),
    ("self._runtime.engine_host_code_allowed", "self._runtime.host_code", '"host_code"'),
    ("config.num_compute_capabilities", "config.compute_capabilities", "compute_capabilities"),
]


@pytest.mark.parametrize("fault", quick(FAULTS[:3], FAULTS))
def test_a_planted_fault_is_found(
    fault: tuple[str, str, str], rtx_stubs: Path, tmp_path: Path
) -> None:
    """Where TensorRT-RTX 1.7 is as TensorRT 11: it has no precision flags either."""
    right, wrong, complaint = fault
    found = complaints(planted(right, wrong, tmp_path), rtx_stubs)

    assert [line for line in found if complaint in line], found


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_the_api_is_that_of_tensorrt(version: str, tmp_path: Path) -> None:
    """Downloads the binding, of about a megabyte."""
    if sys.version_info[:2] > NEWEST_PYTHON.get(version, sys.version_info[:2]):
        pytest.skip(f"there is no TensorRT {version} for this Python")
    stubs = of_tensorrt(version, tmp_path)
    of_tensorrt_rtx(stubs)
    assert complaints(ROOT, stubs) == []

    flags = planted("BuilderFlag.VERSION_COMPATIBLE", "BuilderFlag.FP16", tmp_path)
    removed = version.startswith("11.")
    assert any('"FP16"' in line for line in complaints(flags, stubs)) == removed
