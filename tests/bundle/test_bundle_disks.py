"""Disks that are full, read-only or somebody else's."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from effnet_edge.bundle import (
    Bundle,
    BundleWriter,
)
from effnet_edge.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
from bundle_files import entries, run_python, write

# Disks that refuse

FILE_LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from effnet_edge.bundle import BundleWriter
from effnet_edge.errors import BundleError
try:
    with BundleWriter(sys.argv[1]) as writer:
        (writer.staging / "model.xml").write_bytes(bytes(1_000_000))
except BundleError as error:
    print(error)
"""


def test_a_file_limit_hit_while_writing_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = run_python(FILE_LIMIT, tmp_path / "b")
    assert done.stdout == f"{tmp_path / 'b'}: cannot write the bundle: File too large\n"
    assert entries(tmp_path) == []


@contextmanager
def mounted_tmpfs(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this user cannot mount a file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("free_pages", [0, 1, 2, 3])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, free_pages: int) -> None:
    """Each of the four files, in turn, is the one that the disk has no room for."""
    with mounted_tmpfs(tmp_path / "disk", "size=1m") as disk:
        (disk / "filling").write_bytes(bytes((256 - free_pages) * 4096))
        with pytest.raises(BundleError, match="No space left on device") as caught:
            write(disk / "b")
        assert caught.value.__cause__ is not None
        assert "\n" not in str(caught.value)
        assert entries(disk) == ["filling"]


def test_a_full_disk_keeps_the_old_bundle(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", "size=1m") as disk:
        write(disk / "b")
        with pytest.raises(BundleError, match="No space left"), BundleWriter(disk / "b") as writer:
            (writer.staging / "model.xml").write_bytes(bytes(2_000_000))
        assert Bundle.load(disk / "b").manifest.variant == "b0"
        assert entries(disk) == ["b"]


def test_a_read_only_disk_is_one_line(tmp_path: Path) -> None:
    with (
        mounted_tmpfs(tmp_path / "disk", "ro") as disk,
        pytest.raises(BundleError, match="Read-only file system"),
        BundleWriter(disk / "b"),
    ):
        pass


@pytest.fixture
def unprivileged() -> Iterator[None]:
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.usefixtures("unprivileged")
def test_a_folder_of_someone_else_is_one_line() -> None:
    with pytest.raises(BundleError, match="b: cannot write the bundle: "), BundleWriter("/usr/b"):
        pass


def test_a_parent_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(BundleError, match=r"File exists .*/file\)"),
        BundleWriter(tmp_path / "file" / "b"),
    ):
        pass


def test_an_input_file_that_cannot_be_read_is_not_blamed_on_the_bundle(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), BundleWriter(tmp_path / "b"):
        (tmp_path / "weights").read_bytes()
