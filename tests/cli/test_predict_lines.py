"""`effnet-edge predict --jsonl`: a line for each picture, also after kills."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from predict_command import predict, refusal
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.cli.main import cli

if TYPE_CHECKING:
    from pathlib import Path

PICTURES = 12


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle "b", and pictures in "in"."""
    write_bundle(tmp_path / "b", "onnxruntime", tiny_model(batch="N"))
    pictures(tmp_path / "in", PICTURES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04}.png")


def lines(path: Path) -> list[dict[str, object]]:
    first, *others = [json.loads(line) for line in path.read_text().splitlines()]
    assert first["effnet-edge"] == "predict"
    return others


def answers(path: Path) -> dict[str, object]:
    found = lines(path)
    by_name = {str(line["image"]): line.get("predictions", line.get("error")) for line in found}
    assert len(by_name) == len(found)  # each once
    return by_name


def test_the_lines_are_what_is_printed_otherwise(place: Path) -> None:
    printed = json.loads(predict("in", "--json").stdout)["images"]
    told = json.loads(predict("in", "--jsonl", "out.jsonl", "--json").stdout)
    assert told == {"jsonl": "out.jsonl", "before": 0, "answered": PICTURES, "failed": 0}
    found = answers(place / "out.jsonl")
    assert list(found) == list(printed)
    for name, predictions in printed.items():
        for one, other in zip(found[name], predictions, strict=True):  # type: ignore[call-overload]
            assert one["label"] == other["label"]
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)


def test_a_picture_that_cannot_be_read_is_a_line_too(place: Path) -> None:
    (place / "in/0003.png").write_bytes(b"no picture")
    done = predict("in", "missing.png", "--jsonl", "out.jsonl", code=1)
    told = [line for line in done.stderr.splitlines() if "error" in line]
    assert ["0003.png" in told[0], "missing.png" in told[1], len(told)] == [True, True, 2]
    found = answers(place / "out.jsonl")
    assert len(found) == PICTURES + 1
    assert "0003.png" in str(found["in/0003.png"])
    assert "does not exist" in str(found["missing.png"])
    # It is not asked again, and still counts.
    content = (place / "out.jsonl").read_bytes()
    done = predict("in", "missing.png", "--jsonl", "out.jsonl", "--resume", code=1)
    assert "12 pictures answered" not in done.stdout
    assert "11 pictures answered, 2 not, 13 of them before" in done.stdout
    assert (place / "out.jsonl").read_bytes() == content


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_wherever_a_kill_came_each_picture_is_answered_once(place: Path, share: float) -> None:
    whole, cut = place / "whole.jsonl", place / "cut.jsonl"
    if not whole.exists():
        predict("in", "--jsonl", "whole.jsonl")
    content = whole.read_bytes()
    cut.write_bytes(content[: int(share * len(content))])
    predict("in", "--jsonl", "cut.jsonl", "--resume")
    assert list(answers(cut)) == list(answers(whole))


def test_a_file_of_other_options_is_refused(place: Path) -> None:
    predict("in", "--jsonl", "out.jsonl")
    content = (place / "out.jsonl").read_bytes()
    told = refusal("in", "--jsonl", "out.jsonl", "--resume", "--top", "2")
    assert "another top (None, here 2)" in told
    assert "give --resume" in refusal("in", "--jsonl", "out.jsonl")
    assert (place / "out.jsonl").read_bytes() == content


def test_a_file_of_another_bundle_is_refused_and_one_that_was_moved_is_not(place: Path) -> None:
    predict("in", "--jsonl", "out.jsonl")
    (place / "b").rename(place / "kept")
    other = tiny_model(batch="N")
    other.producer_name = "another"
    write_bundle(place / "b", "onnxruntime", other)
    assert "another bundle" in refusal("in", "--jsonl", "out.jsonl", "--resume")
    (place / "b").rename(place / "other")
    (place / "kept").rename(place / "b")
    (place / "b").rename(place / "moved")
    done = CliRunner().invoke(cli, ["predict", "moved", "in", "--jsonl", "out.jsonl", "--resume"])
    assert done.exit_code == 0


@pytest.mark.parametrize(
    "content",
    [
        b"my notes\n",
        b"my notes",
        b"{}\n",
        b"[1]\n",
        b"[" * 50_000 + b"\n",
        bytes(range(256)),
    ],
    ids=range(6),
)
def test_a_file_of_something_else_is_left_alone(place: Path, content: bytes) -> None:
    (place / "out.jsonl").write_bytes(content)
    assert "give" in refusal("in", "--jsonl", "out.jsonl")
    assert "line 1" in refusal("in", "--jsonl", "out.jsonl", "--resume")
    assert (place / "out.jsonl").read_bytes() == content


def test_lines_that_nobody_here_wrote_are_refused(place: Path) -> None:
    predict("in", "--jsonl", "out.jsonl")
    path = place / "out.jsonl"
    content = path.read_text()
    second = content.splitlines()[1]
    for added in (second, "{}", "nonsense", '{"image": 1}'):
        path.write_text(f"{content}{added}\n")
        assert f"line {PICTURES + 2}" in refusal("in", "--jsonl", "out.jsonl", "--resume")


def test_places_that_cannot_be_written_are_one_line(place: Path) -> None:
    os.mkfifo(place / "pipe")
    for path in ("nowhere/out.jsonl", "pipe"):
        assert path in refusal("in", "--jsonl", path)
    assert "--resume goes with --jsonl" in refusal("in", "--resume")


def test_archives_and_csv_files_name_pictures(place: Path) -> None:
    with tarfile.open(place / "s.tar", "w") as archive:
        for name in ("../a.png", "b\x1b[2J.png"):
            content = (place / "in/0000.png").read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    (place / "list.csv").write_text("path\nin/0001.png\nin/0002.png\n")
    done = predict("*.tar", "list.csv", "in/0001.png", "--jsonl", "out.jsonl")
    assert "\x1b" not in done.output
    assert list(answers(place / "out.jsonl")) == [
        "s.tar/../a.png",
        "s.tar/b\x1b[2J.png",
        "in/0001.png",
        "in/0002.png",
    ]
    assert not (place.parent / "a.png").exists()
    assert "\x1b" not in (place / "out.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.sample
def test_a_thousand_pictures_are_answered_once_through_five_kills(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", "onnxruntime", tiny_model(batch="N"))
    pictures(tmp_path / "in", 1000)
    path = tmp_path / "out.jsonl"
    program = "from effnet_edge.cli.main import main; main()"
    command = [sys.executable, "-c", program, "predict", "b", "in"]
    command += ["--jsonl", path.name, "--resume"]
    killed = 0
    for part in range(1, 6):
        process = subprocess.Popen(command, cwd=tmp_path)
        while process.poll() is None and count(path) < part * 150:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        killed += process.wait(60) == -signal.SIGKILL
    assert killed == 5
    assert 0 < count(path) < 1000
    assert subprocess.run(command, cwd=tmp_path, check=False, timeout=300).returncode == 0
    found = answers(path)
    assert list(found) == [f"in/{number:04}.png" for number in range(1000)]


def count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
