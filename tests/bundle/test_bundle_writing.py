"""A bundle is written whole or not at all, and replaces nothing but a bundle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from disk_events import recorded_events
from tiny_bundles import LABELS, manifest

from effnet_edge.bundle import (
    BatchRange,
    Bundle,
    BundleWriter,
    InputSpec,
)
from effnet_edge.errors import BackendError, BundleError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
from bundle_files import entries, write

# Writing


def test_leaving_without_commit_leaves_nothing(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "b") as writer:
        (writer.staging / "model.xml").touch()
        assert writer.staging.parent == tmp_path
    assert entries(tmp_path) == []


def test_an_error_passes_through_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), BundleWriter(tmp_path / "b") as writer:
        (writer.staging / str(1 // 0)).touch()
    assert entries(tmp_path) == []


def test_an_error_names_the_destination_and_not_the_folder_beside_it(tmp_path: Path) -> None:
    with pytest.raises(BackendError) as caught, BundleWriter(tmp_path / "b") as writer:
        raise BackendError(f"{writer.staging / 'model.onnx'}: TensorRT refuses it")
    assert str(caught.value) == f"{tmp_path / 'b' / 'model.onnx'}: TensorRT refuses it"


def test_an_inconsistent_manifest_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="batch"):
        write(tmp_path / "b", batch=BatchRange(4, 2, 8))
    with pytest.raises(BundleError, match="input"):
        write(tmp_path / "b", input=InputSpec("x", "uint8", "NCHW", 8, 8, 3))
    assert entries(tmp_path) == []


@pytest.mark.parametrize("what", ["folder", "link"])
def test_staging_may_hold_regular_files_only(tmp_path: Path, what: str) -> None:
    with BundleWriter(tmp_path / "b") as writer:
        (writer.staging / "model.xml").touch()
        if what == "folder":
            (writer.staging / "sub").mkdir()
        else:
            (writer.staging / "sub").symlink_to("/etc/hostname")
        with pytest.raises(BundleError, match="regular files only"):
            writer.commit(manifest(), LABELS)
    assert entries(tmp_path) == []


def test_missing_parents_are_made_and_the_umask_decides_who_reads(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    path = write(tmp_path / "out" / "deep" / "b").path
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_bundle_is_replaced(bundle: Path) -> None:
    write(bundle, labels=None, variant="b1")
    assert Bundle.load(bundle).manifest.variant == "b1"
    assert entries(bundle) == ["manifest.json", "model.bin", "model.xml"]
    assert entries(bundle.parent) == [bundle.name]


def test_a_damaged_bundle_is_replaced(bundle: Path) -> None:
    (bundle / "model.bin").unlink()
    write(bundle)
    Bundle.load(bundle)


def test_an_empty_directory_is_used(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write(tmp_path / "b")
    assert entries(tmp_path) == ["b"]
    Bundle.load(tmp_path / "b")


def make_file(path: Path) -> None:
    path.write_text("mine")


def make_full_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("mine")


def make_bundle_with_notes(path: Path) -> None:
    write(path)
    (path / "notes.txt").write_text("mine")


def make_broken_manifest(path: Path) -> None:
    path.mkdir()
    (path / "manifest.json").write_text('{"name": "some web app"}')


def make_link_to_bundle(path: Path) -> None:
    path.symlink_to(write(path.with_name("real")).path)


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    "make",
    [
        make_file,
        make_full_folder,
        make_bundle_with_notes,
        make_broken_manifest,
        make_link_to_bundle,
        make_dangling_link,
    ],
)
def test_anything_else_at_the_destination_is_refused_before_work_starts(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "b")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="exists and is not a bundle: choose another -o"):
        BundleWriter(tmp_path / "b")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_root_directory_is_refused() -> None:
    with pytest.raises(UsageError, match="choose another"):
        BundleWriter("/")


def test_what_appears_at_the_destination_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "b") as writer:
        (writer.staging / "model.xml").touch()
        make_full_folder(tmp_path / "b")
        with pytest.raises(UsageError, match="exists and is not a bundle"):
            writer.commit(manifest(), LABELS)
    assert (tmp_path / "b" / "thesis.txt").read_text() == "mine"
    assert entries(tmp_path) == ["b"]


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_a_swap_that_fails_halfway_puts_the_old_bundle_back(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    monkeypatch.setattr("effnet_edge.bundle.writing.exchange", lambda *_: False)
    rename = Path.rename

    def fail_on_the_new_one(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise failure
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_new_one)
    with pytest.raises((BundleError, KeyboardInterrupt)):
        write(bundle, variant="b1")
    assert Bundle.load(bundle).manifest.variant == "b0"
    assert entries(bundle.parent) == [bundle.name]


def test_files_and_directories_are_synced_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = recorded_events(monkeypatch, "rename")
    write(tmp_path / "b")
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    assert {"model.xml", "model.bin", "labels.json", "manifest.json"} < set(before)
    assert before[-1].endswith(".partial")
    assert after == [tmp_path.name]


WRITE_SLOWLY = """
import sys, time
from tiny_bundles import LABELS, manifest
from effnet_edge.bundle import BundleWriter
with BundleWriter(sys.argv[1]) as writer:
    with (writer.staging / "model.xml").open("wb") as file:
        print("writing", flush=True)
        while True:
            file.write(bytes(1000)); file.flush(); time.sleep(0.001)
"""


def test_ctrl_c_while_writing_leaves_nothing_and_keeps_the_old_bundle(bundle: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_SLOWLY, bundle],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        # A test run in the background of a shell hands down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    time.sleep(0.05)
    assert len(entries(bundle.parent)) == 2
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    process.stdout.close()
    assert entries(bundle.parent) == [bundle.name]
    Bundle.load(bundle)
