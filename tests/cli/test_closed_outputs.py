"""Outputs that are closed or full: one line, the right exit code, and nothing written elsewhere."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from picture_makers import encoded, photo_like
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.errors import BackendError
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = f"{sys.executable} -c 'from effnet_edge.cli.main import main; main()'"


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(
        tmp_path_factory.mktemp("outputs") / "b", "onnxruntime", tiny_model(batch="N")
    )


@pytest.mark.parametrize(
    "command", ["list", "list --json", "info b0", "info {b}", "verify {b}", "verify {b} --json"]
)
def test_a_full_output_is_one_line(bundle: Path, tmp_path: Path, command: str) -> None:
    done = shell(f"{COMMAND} {command.format(b=bundle)} > /dev/full", tmp_path)
    assert done.returncode == 1
    told = "effnet-edge: error: the system refuses: No space left on device: standard output\n"
    assert done.stderr == told


def test_a_closed_error_output_changes_nothing(bundle: Path, tmp_path: Path) -> None:
    whole = shell(f"{COMMAND} verify {bundle} --json", tmp_path)
    assert whole.returncode == 0
    assert shell(f"{COMMAND} verify {bundle} --json 2>&- <&-", tmp_path).stdout == whole.stdout
    assert shell(f"{COMMAND} verify nothing 2>&-", tmp_path).returncode == 2


PRINTS = """
import ctypes, os, sys
from effnet_edge.cli import main as front
front._fill_closed_streams()
with open(sys.argv[1], "wb") as file:
    file.write(b"a model")
    file.flush()
    ctypes.CDLL(None).dprintf(1, b"printed by a library")
    ctypes.CDLL(None).dprintf(2, b"and its error")
"""


def test_what_a_library_prints_never_goes_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(PRINTS)
    shell(f"{sys.executable} script.py model.bin <&- >&- 2>&-", tmp_path)
    assert (tmp_path / "model.bin").read_bytes() == b"a model"


def test_a_full_folder_for_temporary_files_is_one_line(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(full)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user cannot mount a file system")
    try:
        (full / "filling").write_bytes(bytes(8192))
        monkeypatch.setattr("tempfile.tempdir", str(full))
        told = rf"model\.onnx: the profile of a run cannot be written to {full}.*set TMPDIR"
        with EngineRunner.load(bundle) as run, pytest.raises(BackendError, match=told):
            _ = run.execution_precision
        assert sorted(each.name for each in full.iterdir()) == ["filling"]
    finally:
        subprocess.run(["umount", str(full)], check=True)


def test_a_full_disk_under_a_file_of_lines_is_a_failed_job(tmp_path: Path) -> None:
    # OpenVINO writes nothing itself, that the limit on the size of files would meet.
    write_bundle(tmp_path / "b", "openvino", tiny_model())
    for index in range(12):
        (tmp_path / f"{index}.png").write_bytes(encoded(photo_like(9, 9), "PNG"))
    done = shell(f"ulimit -f 1; {COMMAND} predict b . --jsonl out.jsonl", tmp_path)
    assert done.returncode == 1
    (told,) = done.stderr.splitlines()
    assert told.startswith("effnet-edge: error: out.jsonl: cannot be written: ")


def test_a_file_of_lines_that_cannot_be_opened_is_bad_use(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(encoded(photo_like(9, 9), "PNG"))
    done = shell(f"{COMMAND} predict {bundle} . --jsonl nowhere/out.jsonl", tmp_path)
    assert done.returncode == 2
