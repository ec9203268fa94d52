"""An export is known by what is in the files that its options name, not by their names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from effnet_edge.fleet.named_files import NamedFiles
from effnet_edge.fleet.orders import export_job
from effnet_edge.fleet.plan_sweeps import Export

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def key(*options: str) -> str:
    export = Export("b0", ("b0", "--target", "openvino", *options), options, ("here",), "here")
    return export_job(export, "here", NamedFiles()).key


@pytest.mark.parametrize(
    ("options", "file"),
    [
        (("--labels", "labels.txt"), "labels.txt"),
        (("--labels=labels.txt",), "labels.txt"),
        (("--weights", "net.pth"), "net.pth"),
        (("--weights", "net.pth#backbone"), "net.pth"),
        (("--weights", "net.pth"), "config.json"),
        (("--weights", "model.ckpt"), "model.ckpt.data-00000-of-00001"),
        (("--weights", "model.ckpt.index"), "model.ckpt.data-00000-of-00001"),
        (("--against", "net.xml"), "net.bin"),
        (("--against", "net.onnx"), "net.onnx.data"),
        (("--calibration", "pictures"), "pictures/cat/1.png"),
    ],
)
def test_another_content_is_another_job(place: Path, options: tuple[str, ...], file: str) -> None:
    (place / "pictures/cat").mkdir(parents=True)
    for name in ("labels.txt", "net.pth", "model.ckpt.index", "net.xml", "net.onnx", file):
        (place / name).write_text("before")
    before = key(*options)
    assert key(*options) == before
    (place / file).write_text("later!")
    os.utime(place / file, ns=(1, 1))
    assert key(*options) != before
    (place / file).write_text("before")
    (place / "notes.txt").write_text("of no export")
    assert (key(*options) == before) == ("pictures" not in options)


def test_a_picture_more_or_less_is_another_job(place: Path) -> None:
    (place / "pictures").mkdir()
    empty = key("--calibration", "pictures")
    (place / "pictures/1.png").touch()
    one = key("--calibration", "pictures")
    (place / "pictures/1.png").rename(place / "pictures/2.png")
    assert len({empty, one, key("--calibration", "pictures")}) == 3


@pytest.mark.parametrize("name", ["list.csv", "list.txt"])
def test_a_listed_picture_that_changes_is_another_job(place: Path, name: str) -> None:
    (place / name).write_text("label,path\ncat,in/1.png\ncat,in/2.png\n")
    (place / "in").mkdir()
    for number in (1, 2, 3):
        (place / f"in/{number}.png").touch()
    options = ("--calibration", name)
    before = key(*options)
    os.utime(place / "in/3.png", ns=(1, 1))
    assert key(*options) == before
    os.utime(place / "in/2.png", ns=(1, 1))
    assert key(*options) != before
    (place / "in/2.png").unlink()
    key(*options)


def test_options_without_files_keep_the_keys_of_earlier_runs(place: Path) -> None:
    (place / "b0").mkdir()
    (place / "openvino").mkdir()
    job = export_job(
        Export("b0", ("b0", "--weights", "random"), ("--weights", "random"), (), "here"),
        "here",
        NamedFiles(),
    )
    assert "files" not in job.document
    assert (
        "files"
        not in export_job(Export("b0", ("b0",), (), (), "here"), "here", NamedFiles()).document
    )


@pytest.mark.parametrize("option", ["a" * 5000, "nu\0l", "gone.pth", "--", "=", "#", ""])
def test_what_is_no_file_is_left_to_the_export(option: str) -> None:
    assert NamedFiles().digests([option]) == {}
