"""`effnet-edge parity --jsonl` and `--resume`: no picture is answered twice, and all is equal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_bundles import LABELS, tiny_model, truth, write_bundle

from effnet_edge.bundle import Bundle, OutputSpec
from effnet_edge.cli.main import cli
from effnet_edge.errors import UsageError
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.pictures.image import prepare

if TYPE_CHECKING:
    from effnet_edge.outputs import OutputKind

PICTURES = 40
BASE = ["--reference", "b.onnx", "--images", "in", "--batch-size", "4"]


def make(folder: Path, count: int) -> None:
    """A bundle "b", its graph "b.onnx", and pictures in "in"."""
    write_bundle(folder / "b", "onnxruntime", tiny_model(batch="N"))
    onnx.save(tiny_model(batch="N"), folder / "b.onnx")
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / "in" / LABELS[number % len(LABELS)].name / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8)).save(path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make(tmp_path, PICTURES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parity(*arguments: str) -> dict[str, object]:
    given = ["parity", "b", *BASE, "--json", *arguments]
    done = CliRunner().invoke(cli, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    document: dict[str, object] = json.loads(done.stdout)
    return document


def lines(path: Path) -> list[dict[str, object]]:
    first, *others = [json.loads(line) for line in path.read_text().splitlines()]
    assert first["effnet-edge"] == "parity"
    return others


def stop_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have the reference fail after that many batches; the number of pictures it answered."""
    answered: list[int] = []
    infer = OnnxClassifier.infer

    def counted(self: OnnxClassifier, batch: np.ndarray) -> np.ndarray:
        if len(answered) == calls:
            raise KeyboardInterrupt
        answered.append(len(batch))
        return infer(self, batch)

    monkeypatch.setattr(OnnxClassifier, "infer", counted)
    return answered


def test_a_line_tells_what_each_model_answered(place: Path) -> None:
    (place / "in/animal 0/bad.png").write_bytes(b"no picture")
    parity("--jsonl", "out.jsonl")
    found = lines(place / "out.jsonl")
    assert [line["image"] for line in found] == sorted(
        path.relative_to(place).as_posix() for path in (place / "in").rglob("*.png")
    )
    preprocessing = Bundle.load(place / "b").manifest.preprocessing
    for line in found:
        path = Path(str(line["image"]))
        if path.name == "bad.png":
            assert "bad.png" in str(line["error"])
            continue
        (logits,) = truth(tiny_model(batch="N"), prepare(path, preprocessing)[None])
        best = int(logits.argmax())
        assert line["truth"] == int(path.parent.name.removeprefix("animal "))
        for answer in (line["reference"], line["candidates"][0]):  # type: ignore[index]
            assert (answer["index"], answer["label"]) == (best, LABELS[best].name)  # type: ignore[index]


@pytest.mark.parametrize("calls", [1, 3, 7])
def test_a_stopped_run_is_gone_on_with_and_ends_as_one_that_was_not(
    place: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    whole = parity("--jsonl", "whole.jsonl", "--answers", "whole")
    given = ["--jsonl", "cut.jsonl", "--answers", "cut"]
    with monkeypatch.context() as patched:
        stop_after(calls, patched)
        done = CliRunner().invoke(cli, ["parity", "b", *BASE, *given])
        assert done.exit_code != 0
    (unfinished,) = (place / "cut").glob("*.unfinished.answers")
    assert unfinished.stat().st_size
    with (place / "cut.jsonl").open("ab") as file:
        file.write(b'{"image": "in/anim')  # as of a kill amid a line
    with monkeypatch.context() as patched:
        answered = stop_after(100, patched)
        resumed = parity(*given, "--resume")
        # 16 pictures again at several batch sizes are no comparison; the reference has theirs.
        assert sum(answered) == PICTURES - 4 * (calls - 1)
    assert (place / "cut.jsonl").read_bytes() == (place / "whole.jsonl").read_bytes()
    assert not list((place / "cut").glob("*.unfinished.answers"))
    for document in (whole, resumed):
        document["command"] = document["created"] = None
    assert resumed == whole


def test_without_resume_a_candidate_is_run_again_as_a_whole(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["--answers", "kept"]
    with monkeypatch.context() as patched:
        stop_after(3, patched)
        CliRunner().invoke(cli, ["parity", "b", *BASE, *given])
    (unfinished,) = (place / "kept").glob("*.unfinished.answers")
    content = bytearray(unfinished.read_bytes())
    content[-1] ^= 1  # nobody looks at it
    unfinished.write_bytes(content)
    assert parity(*given)["images"] == PICTURES
    assert not unfinished.exists()


def test_what_does_not_go_together_is_one_line(place: Path) -> None:
    parity("--jsonl", "out.jsonl", "--answers", "kept")
    content = (place / "out.jsonl").read_bytes()
    with pytest.raises(UsageError, match="--resume goes with --answers"):
        parity("--jsonl", "out.jsonl", "--resume")
    with pytest.raises(UsageError, match="is there already"):
        parity("--jsonl", "out.jsonl")
    other = tiny_model(batch="N")
    other.producer_name = "another"
    onnx.save(other, place / "b.onnx")
    with pytest.raises(UsageError, match="another reference"):
        parity("--jsonl", "out.jsonl", "--answers", "kept", "--resume")
    assert (place / "out.jsonl").read_bytes() == content


def test_lines_are_not_gone_on_with_under_other_labels(place: Path) -> None:
    """Or they would tell the truth of the file that they were begun with."""
    for name, shift in (("right.txt", 0), ("wrong.txt", 1)):
        numbers = [str((at + shift) % len(LABELS)) for at in range(PICTURES)]
        (place / name).write_text("\n".join(numbers))
    given = ["--answers", "kept", "--jsonl", "out.jsonl", "--labels"]
    parity(*given, "wrong.txt")
    content = (place / "out.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"out\.jsonl was written with another labels"):
        parity(*given, "right.txt", "--resume")
    assert (place / "out.jsonl").read_bytes() == content
    parity(*given, "wrong.txt", "--resume")


def test_the_same_pictures_in_an_archive_have_their_answers_already(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = parity("--answers", "kept")
    command = ["tar", "-C", "in", "-cf", "set.tar", "--sort=name"]
    subprocess.run([*command, "."], cwd=place, check=True)
    stop_after(0, monkeypatch)
    given = [*BASE, "--answers", "kept", "--json"]
    given[given.index("in")] = "set.tar"
    done = CliRunner().invoke(cli, ["parity", "b", *given], catch_exceptions=False)
    packed = json.loads(done.stdout)
    assert packed["candidates"][0]["accuracy"] == whole["candidates"][0]["accuracy"]  # type: ignore[index]


@pytest.mark.parametrize("kind", ["multi-label", "regression", "features"])
def test_other_outputs_than_classes_have_lines_too(place: Path, kind: OutputKind) -> None:
    labels = None if kind == "features" else LABELS
    output = OutputSpec("logits", len(LABELS), kind)
    write_bundle(place / "other", "onnxruntime", tiny_model(batch="N"), labels, output=output)
    given = ["parity", "other", *BASE, "--jsonl", "out.jsonl", "--answers", "kept"]
    done = CliRunner().invoke(cli, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    preprocessing = Bundle.load(place / "other").manifest.preprocessing
    for line in lines(place / "out.jsonl"):
        (logits,) = truth(tiny_model(batch="N"), prepare(str(line["image"]), preprocessing)[None])
        answer = line["reference"]
        assert isinstance(answer, dict)
        if kind == "multi-label":
            assert answer == {"indices": np.flatnonzero(logits > 0).tolist()}
        elif kind == "regression":
            np.testing.assert_allclose(answer["values"], logits, rtol=1e-4, atol=1e-5)
        else:
            assert answer == {}


def test_a_ground_truth_file_labels_a_flat_folder_as_folders_do(place: Path) -> None:
    by_folder = parity()
    (place / "flat").mkdir()
    (place / "map_clsloc.txt").write_text(
        "".join(f"{label.wnid} {5 - index} name\n" for index, label in enumerate(LABELS))
    )
    numbers = []
    for path in sorted((place / "in").rglob("*.png"), key=lambda path: path.name):
        (place / "flat" / path.name).symlink_to(path)
        numbers.append(f"{5 - int(path.parent.name.removeprefix('animal '))}\n")
    (place / "truth.txt").write_text("".join(numbers))
    given = ["parity", "b", "--reference", "b.onnx", "--images", "flat", "--json"]
    done = CliRunner().invoke(cli, [*given, "--labels", "truth.txt"], catch_exceptions=False)
    flat = json.loads(done.stdout)
    assert "ILSVRC's own numbers" in flat["image_source"]
    accuracy = flat["candidates"][0]["accuracy"]
    assert accuracy == by_folder["candidates"][0]["accuracy"]  # type: ignore[index]
    assert 0 < accuracy["top1"]["reference_percent"] < 100


@pytest.mark.slow
def test_a_parity_of_400_pictures_goes_on_through_kills(tmp_path: Path) -> None:
    make(tmp_path, 400)
    program = "from effnet_edge.cli.main import main; main()"
    given = ["--jsonl", "out.jsonl", "--answers", "kept", "--resume", "--json"]
    command = [sys.executable, "-c", program, "parity", "b", *BASE, *given]
    path = tmp_path / "out.jsonl"
    for part in (1, 2, 3):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
        while process.poll() is None and count(path) < part * 80:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=300)
    assert json.loads(done.stdout)["images"] == 400
    names = [line["image"] for line in lines(path)]
    assert len(names) == len(set(names)) == 400


def count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
