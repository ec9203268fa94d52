"""`effnet-edge predict` of many pictures: answers as they come, bad ones between, and Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from predict_command import predict, refusal
from real_commands import EFFNET_EDGE
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.cli.answered import Answered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from effnet_edge.cli.answered import Answer

PICTURES = 30


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle "b", and pictures in "in", of which 0007.png is none."""
    write_bundle(tmp_path / "b", "openvino", tiny_model())
    pictures(tmp_path / "in", PICTURES)
    (tmp_path / "in/0007.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04}.png")


def names(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.endswith(".png")]


@pytest.mark.usefixtures("place")
def test_answers_are_in_order_and_a_bad_one_stops_nothing() -> None:
    expected = [f"in/{number:04}.png" for number in range(PICTURES)]
    good = [name for name in expected if "0007" not in name]
    done = predict("in", "gone.png", "in/0003.png", code=1)
    assert names(done.stdout) == good
    assert [line for line in done.stderr.splitlines() if "error" in line] == [
        "effnet-edge: error: 'in/0007.png' is not a picture, or damaged; read are JPEG, PNG, WEBP, "
        "BMP, GIF, TIFF, PPM, JPEG2000, AVIF",
        "effnet-edge: error: 'gone.png' does not exist; check the path of the picture",
    ]
    told = json.loads(predict("in", "gone.png", "--json", code=1).stdout)
    assert list(told["images"]) == [*expected, "gone.png"]
    assert "not a picture" in told["images"]["in/0007.png"]["error"]
    assert "does not exist" in told["images"]["gone.png"]["error"]
    assert not told["interrupted"]


@pytest.mark.usefixtures("place")
def test_all_formats_have_the_same_answers(place: Path) -> None:
    told = json.loads(predict("in", "--json", code=1).stdout)["images"]
    predict("in", "--jsonl", "out.jsonl", code=1)
    lines = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()[1:]]
    assert [line["image"] for line in lines] == list(told)
    for line in lines:
        assert told[line["image"]] == line.get("predictions", {"error": line.get("error")})
    blocks = predict("in", "--top", "2", code=1).stdout.split("in/")[1:]
    for block in blocks:
        name, *rows = block.splitlines()
        assert [row.split("%")[0].strip() for row in rows] == [
            f"{100 * each['probability']:.1f}" for each in told[f"in/{name}"][:2]
        ]
        assert len({row.index("%") for row in rows}) == 1


@pytest.mark.usefixtures("place")
def test_a_single_name_that_is_wrong_is_bad_use() -> None:
    assert "does not exist" in refusal("gone.png")
    assert "does not exist" in refusal("gone.png", "--json")


def interrupted_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Answered.of_pictures

    def some(self: Answered, done: set[str] | tuple[str, ...] = ()) -> Iterator[Answer]:
        for number, answer in enumerate(whole(self, done)):
            if number == count:
                raise KeyboardInterrupt
            yield answer

    monkeypatch.setattr(Answered, "of_pictures", some)


def test_ctrl_c_keeps_the_answers_in_every_format(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_after(5, monkeypatch)
    done = predict("in", code=130)
    assert len(names(done.stdout)) == 5
    assert "interrupted: 5 answered" in done.stderr
    told = json.loads(predict("in", "--json", code=130).stdout)
    assert told["interrupted"]
    assert len(told["images"]) == 5
    done = predict("in", "--jsonl", "out.jsonl", code=130)
    assert "interrupted: 5 answered, which out.jsonl keeps" in done.stderr
    assert len((place / "out.jsonl").read_text().splitlines()) == 6
    monkeypatch.undo()
    monkeypatch.chdir(place)
    done = predict("in", "--jsonl", "out.jsonl", "--resume", code=1)
    assert f"{PICTURES - 1} pictures answered, 1 not, 5 of them before" in done.stdout


def test_answers_go_into_a_file_while_the_bar_is_on_a_terminal(place: Path) -> None:
    main, terminal = pty.openpty()
    with (place / "out.txt").open("wb") as out:
        command = [EFFNET_EDGE, "predict", "b", "in", "--top", "1"]
        process = subprocess.Popen(command, cwd=place, stdout=out, stderr=terminal)
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # of a terminal that nobody has open any more
            while part := os.read(main, 4096):
                shown += part
        os.close(main)
        assert process.wait(60) == 1
    assert len(names((place / "out.txt").read_text())) == PICTURES - 1
    assert b"classifying" in shown
    assert b"in/0001.png" not in shown


@pytest.mark.slow
@pytest.mark.sample
def test_answers_come_before_the_end_and_ctrl_c_ends_it(place: Path) -> None:
    pictures(place / "many", 3_000)
    command = [EFFNET_EDGE, "predict", "b", "many", "--top", "1"]
    with subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        printed, told = process.communicate(timeout=60)
    assert process.returncode == 130
    found = names(first + printed)
    assert 1 <= len(found) < 3_000
    assert found == [f"many/{number:04}.png" for number in range(len(found))]
    assert f"interrupted: {len(found)} answered" in told or f"{len(found) + 1} answered" in told
