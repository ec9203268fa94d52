"""`effnet-edge predict` of videos, and of what is given as a camera."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from predict_command import predict, refusal
from real_commands import EFFNET_EDGE
from tiny_bundles import tiny_model, write_bundle
from video_makers import quarters, write_video

from effnet_edge.cli.answered import Answered
from effnet_edge.errors import UsageError
from effnet_edge.pictures.video import Video

if TYPE_CHECKING:
    from pathlib import Path

TIMES = ["0.000", "0.100", "0.200", "0.300"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle "b", a video of four frames and a picture."""
    write_bundle(tmp_path / "b", "onnxruntime", tiny_model(batch="N"))
    write_video(tmp_path / "clip.mp4", frames=4)
    Image.fromarray(quarters()).save(tmp_path / "still.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def by_name(path: Path) -> dict[str, object]:
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return {line["image"]: line.get("predictions", line.get("error")) for line in lines}


@pytest.mark.usefixtures("place")
def test_a_line_for_each_frame_and_a_table_for_each_picture() -> None:
    done = predict("clip.mp4", "still.png")
    printed = done.stdout.splitlines()
    assert printed[0] == "still.png"
    frames = [line for line in printed if line.startswith("clip.mp4")]
    assert [line.split()[0] for line in frames] == [f"clip.mp4#t={time}" for time in TIMES]
    assert all(line.count("%") == 1 for line in frames)
    assert "clip.mp4: 4 frames answered" in done.stderr
    two = [line for line in predict("clip.mp4", "--top", "2").stdout.splitlines() if line]
    assert all(line.count("%") == 2 for line in two)


def test_json_and_lines_have_the_same_answers(place: Path) -> None:
    printed = json.loads(predict("clip.mp4", "still.png", "--json").stdout)["images"]
    assert list(printed) == ["still.png", *(f"clip.mp4#t={time}" for time in TIMES)]
    predict("clip.mp4", "still.png", "--jsonl", "out.jsonl")
    assert by_name(place / "out.jsonl") == printed


@pytest.mark.usefixtures("place")
def test_patterns_have_videos_and_pictures_and_folders_have_pictures() -> None:
    printed = json.loads(predict("*.*", "--every", "0.2", "--json").stdout)["images"]
    assert list(printed) == ["still.png", "clip.mp4#t=0.000", "clip.mp4#t=0.200"]
    assert list(json.loads(predict(".", "--json").stdout)["images"]) == ["still.png"]


def test_a_run_goes_on_where_it_ended(place: Path) -> None:
    predict("clip.mp4", "--jsonl", "out.jsonl")
    whole = by_name(place / "out.jsonl")
    lines = (place / "out.jsonl").read_text().splitlines(keepends=True)
    (place / "out.jsonl").write_text("".join(lines[:3]))
    told = json.loads(predict("clip.mp4", "--jsonl", "out.jsonl", "--resume", "--json").stdout)
    assert told["before"] == 2
    assert by_name(place / "out.jsonl") == whole


def test_a_damaged_video_is_a_line_and_the_others_are_answered(place: Path) -> None:
    (place / "broken.mp4").write_bytes(b"no video")
    done = predict("broken.mp4", "clip.mp4", code=1)
    assert len(done.stdout.splitlines()) == len(TIMES)
    (error,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert "'broken.mp4' cannot be read as a video" in error
    predict("broken.mp4", "clip.mp4", "--jsonl", "out.jsonl", code=1)
    assert "cannot be read" in str(by_name(place / "out.jsonl")["broken.mp4"])


@pytest.mark.usefixtures("place")
def test_what_makes_no_sense_is_refused() -> None:
    assert "camera:0" in refusal("0")
    assert "camera:/dev/video7" in refusal("/dev/video7")
    assert "camera:0" in refusal("webcam")
    assert refusal("*.mov") == "'*.mov' matches no videos"
    assert "nothing is downloaded" in refusal("https://example.org/a.jpg")
    assert "no camera /dev/video99" in refusal("camera:99")
    assert "does not exist" in refusal("none.mp4", "still.png")
    assert "--every" in refusal("still.png", "--every", "1")


@pytest.mark.parametrize(
    ("resume", "at_the_end", "told"), [(True, False, "--resume"), (False, True, "--jsonl FILE")]
)
def test_a_camera_has_no_end(resume: bool, at_the_end: bool, told: str) -> None:
    camera = Video.named("camera:0")
    assert camera is not None
    assert camera.device == "/dev/video0"
    work = Answered(None, {"camera:0": camera}, lambda *_: [], None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=told):
        work.check(resume=resume, at_the_end=at_the_end)


@pytest.mark.slow
@pytest.mark.sample
def test_ctrl_c_keeps_what_was_answered(place: Path) -> None:
    write_video(place / "long.mp4", frames=30_000, codec="mpeg4")
    command = [EFFNET_EDGE, "predict", "b", "long.mp4", "--jsonl", "out.jsonl"]
    with subprocess.Popen(command, cwd=place) as process:
        lines = place / "out.jsonl"
        deadline = time.monotonic() + 60
        while not lines.exists() or len(lines.read_bytes().splitlines()) < 20:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    found = by_name(lines)
    assert len(found) >= 19
    assert all(isinstance(answer, list) for answer in found.values())
