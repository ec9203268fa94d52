"""Whenever a writer is killed there is a bundle under the name, and the next one tidies up."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from bundle_files import entries, write

from effnet_edge.bundle import Bundle, BundleWriter, places
from effnet_edge.bundle.places import exchange
from effnet_edge.errors import BundleError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def killed(place: Path, *, after_renames: int, swaps: bool) -> None:
    """Replace a bundle in a process that is killed after so many renames."""
    code = f"""
import os, signal, sys
from pathlib import Path
from bundle_files import write
from effnet_edge.bundle import writing
real, done = Path.rename, []
def die(*_):
    done.append(1)
    if len(done) == {after_renames}: os.kill(os.getpid(), signal.SIGKILL)
def rename(self, target):
    real(self, target); die(); return target
Path.rename = rename
swap = writing.exchange
def exchange(*names):
    swapped = {swaps} and swap(*names)
    if swapped: die()
    return swapped
writing.exchange = exchange
write(Path(sys.argv[1]), variant="b1")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, place],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == -signal.SIGKILL


def test_folders_are_exchanged_in_one_step(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot")
    assert (entries(tmp_path / "a"), entries(tmp_path / "b")) == (["b"], ["a"])
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "a", tmp_path / "none")


def test_killed_after_the_exchange_the_new_bundle_is_there(bundle: Path, tmp_path: Path) -> None:
    killed(bundle, after_renames=1, swaps=True)
    assert Bundle.load(bundle).manifest.variant == "b1"
    write(bundle, variant="b2")
    assert entries(tmp_path) == [bundle.name]


def test_killed_between_two_renames_the_old_bundle_comes_back(bundle: Path, tmp_path: Path) -> None:
    killed(bundle, after_renames=1, swaps=False)
    assert not bundle.exists()
    assert Bundle.load(bundle).manifest.variant == "b0"
    write(bundle, variant="b2")
    assert Bundle.load(bundle).manifest.variant == "b2"
    assert entries(tmp_path) == [bundle.name]


def test_killed_after_two_renames_the_old_bundle_is_removed(bundle: Path, tmp_path: Path) -> None:
    killed(bundle, after_renames=2, swaps=False)
    assert Bundle.load(bundle).manifest.variant == "b1"
    write(bundle, variant="b2")
    assert entries(tmp_path) == [bundle.name]


def test_an_export_comes_back_before_it_is_replaced(bundle: Path) -> None:
    killed(bundle, after_renames=1, swaps=False)
    with pytest.raises(ZeroDivisionError), BundleWriter(bundle):
        raise ZeroDivisionError
    assert Bundle.load(bundle).manifest.variant == "b0"


def test_of_two_writers_to_one_place_the_second_is_told(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "b") as first:
        with pytest.raises(BundleError, match="is being written by another effnet-edge"):
            write(tmp_path / "b")
        assert first.staging.is_dir()
        write(tmp_path / "b.other")
    write(tmp_path / "b")
    assert entries(tmp_path) == ["b", "b.other"]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[int]:
    """The folder that bundles lie in, locked by another program."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield descriptor
    os.close(descriptor)


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("held")
def test_a_folder_that_another_program_has_locked_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_PATIENCE_SECONDS", 0.1)
    with (
        pytest.raises(BundleError, match="has held this folder's lock for 0.1 s: wait for it"),
        BundleWriter(tmp_path / "bundle"),
    ):
        pass
    assert entries(tmp_path) == []


@pytest.mark.timeout(60)
def test_a_folder_that_is_locked_for_a_moment_is_waited_for(held: int, tmp_path: Path) -> None:
    opened = threading.Timer(0.2, fcntl.flock, (held, fcntl.LOCK_UN))
    opened.start()
    write(tmp_path / "bundle")
    opened.join()
    assert entries(tmp_path) == ["bundle"]


def test_what_only_looks_alike_stays(tmp_path: Path) -> None:
    for name in (".b.notes.partial", ".b.0123456789.old", ".c.01234567.partial"):
        (tmp_path / name).mkdir()
    write(tmp_path / "b")
    assert len(entries(tmp_path)) == 4


@pytest.mark.parametrize("where", [".", "..", "../.."])
def test_the_current_directory_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with pytest.raises(UsageError, match="is the current directory, or one above it"):
        BundleWriter(where)
