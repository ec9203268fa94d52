from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from disk_events import recorded_events

from effnet_edge.files import replacing, write_whole

if TYPE_CHECKING:
    from pathlib import Path


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("content", "stored"),
    [
        ("naïve 犬\n", "naïve 犬\n".encode()),
        (b"\x00\xff", b"\x00\xff"),
        (os.fsdecode(b"caf\xe9.onnx"), rb"caf\udce9.onnx"),
    ],
)
def test_what_is_written_is_there_alone(
    tmp_path: Path, content: str | bytes, stored: bytes
) -> None:
    write_whole(tmp_path / "file.json", content)
    assert (tmp_path / "file.json").read_bytes() == stored
    assert entries(tmp_path) == ["file.json"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path: Path, failure: BaseException
) -> None:
    path = tmp_path / "plot.svg"
    path.write_text("old")

    def fail_halfway() -> None:
        with replacing(path) as staging:
            assert staging.suffix == ".svg"
            staging.write_text("ne")
            raise failure

    with pytest.raises(type(failure)):
        fail_halfway()
    assert path.read_text() == "old"
    assert entries(tmp_path) == ["plot.svg"]


def test_the_content_is_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = recorded_events(monkeypatch, "replace")
    write_whole(tmp_path / "table.json", "{}")

    assert events[0].startswith(".table.")
    assert events[1:] == ["rename", tmp_path.name]


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "missing" / "file", "")
