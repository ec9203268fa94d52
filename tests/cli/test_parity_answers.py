"""`effnet-edge parity` with a reference whose answers are on file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx.external_data_helper import set_external_data
from PIL import Image
from tiny_bundles import CLASSES, tiny_model, truth, write_bundle

from effnet_edge.bundle import Bundle
from effnet_edge.cli.main import cli
from effnet_edge.errors import CheckpointError, UsageError
from effnet_edge.parity.models.answer_file import Answerer, AnswerFile, picture_key
from effnet_edge.pictures.image import prepare
from effnet_export.recording import answers_name, identity_of_manifest

if TYPE_CHECKING:
    from pathlib import Path

PICTURES = 6


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle "b", its graph "b.onnx", and pictures in "in"."""
    write_bundle(tmp_path / "b", "onnxruntime", tiny_model(batch="N"))
    onnx.save(tiny_model(batch="N"), tmp_path / "b.onnx")
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(PICTURES):
        pixels = random.integers(0, 256, (12, 12, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"in/{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parity(*arguments: str) -> Result:
    done = CliRunner().invoke(cli, ["parity", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def refusal(*arguments: str) -> str:
    with pytest.raises(UsageError) as refused:
        parity(*arguments)
    return str(refused.value)


def record_network(place: Path, *, error: float = 0.0) -> Path:
    """The answers of the network that the bundle says it was made from."""
    manifest = Bundle.load(place / "b").manifest
    identity = identity_of_manifest(manifest)
    path = place / "answers" / answers_name("torch", identity)
    answerer = Answerer("torch", "FP32", "single-label", CLASSES, False, 100, identity)
    file = AnswerFile.opened_for(path, answerer)
    for picture in sorted((place / "in").iterdir()):
        pixels = prepare(picture, manifest.preprocessing)
        file.add(picture_key(pixels), truth(tiny_model(batch="N"), pixels[None])[0] + error)
    file.close()
    return path


def without_libraries(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where neither torch nor onnx is installed."""
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'onnxscript']));"
        "from effnet_edge.cli.main import main; main()"
    )
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_machine_without_torch_checks_a_bundle_against_recorded_answers(place: Path) -> None:
    path = record_network(place)
    arguments = ["b", "--images", "in", "--max-relative-error", "0.001", "--json"]
    done = without_libraries("parity", *arguments, "--answers", "answers")
    assert done.returncode == 0, done.stderr
    by_file = parity(*arguments, "--reference", str(path))
    for document in map(json.loads, (done.stdout, by_file.stdout)):
        assert document["passed"] is True
        assert document["reference"] == "torch"
        assert document["images"] == PICTURES


def test_weights_that_are_named_are_looked_at_though_all_answers_are_there(place: Path) -> None:
    record_network(place)
    (place / "k.pem").write_text("no checkpoint")
    with pytest.raises(CheckpointError, match=r"k\.pem"):
        parity("b", "--images", "in", "--answers", "answers", "--weights", "k.pem")


def test_a_wrong_answer_fails_there_and_the_result_is_still_told(place: Path) -> None:
    path = record_network(place, error=0.5)
    limit = ["--max-relative-error", "0.001"]
    done = without_libraries("parity", "b", "--images", "in", "--reference", str(path), *limit)
    assert done.returncode == 1
    assert "FAILED: b: relative error" in done.stdout
    assert "the node at fault is not looked for" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_picture_without_an_answer_is_one_line(place: Path) -> None:
    path = record_network(place)
    Image.new("RGB", (12, 12)).save(place / "in/new.png")
    told = refusal("b", "--images", "in", "--reference", str(path))
    assert "has no answer to 1 of these 7 pictures" in told
    done = without_libraries("parity", "b", "--images", "in", "--answers", "answers")
    assert done.returncode == 1
    assert "comparing with PyTorch needs torch" in done.stderr


def test_answers_of_another_network_or_to_other_pixels_are_one_line(place: Path) -> None:
    path = record_network(place)
    model = tiny_model(batch="N")
    bundle = Bundle.load(place / "b").manifest
    weights = replace(bundle.weights, sha256="1" * 64)
    write_bundle(place / "other", "onnxruntime", model, weights=weights)
    bilinear = replace(bundle.preprocessing, interpolation="bilinear")
    write_bundle(place / "pixels", "onnxruntime", model, preprocessing=bilinear)
    for candidate, why in (("other", "weights differs"), ("pixels", "prepared otherwise")):
        told = refusal(candidate, "--images", "in", "--reference", str(path))
        assert why in told
        assert str(path) in told


def test_a_file_put_under_the_name_of_another_model_is_one_line(place: Path) -> None:
    path = record_network(place)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"bicubic"', b'"nearest"'))
    told = refusal("b", "--images", "in", "--answers", "answers")
    assert "answers of another model" in told


def test_each_model_gets_a_file_and_is_run_once(place: Path) -> None:
    arguments = ("b", "--reference", "b.onnx", "--images", "in", "--answers", "kept", "--json")
    first = json.loads(parity(*arguments).stdout)
    (kept,) = (place / "kept").iterdir()
    content = kept.read_bytes()
    second = json.loads(parity(*arguments).stdout)
    assert kept.read_bytes() == content
    assert first["candidates"] == second["candidates"]
    # A model of another content is another one, whatever it is called.
    changed = tiny_model(batch="N")
    changed.producer_name = "somebody else"
    onnx.save(changed, place / "b.onnx")
    parity(*arguments)
    assert len(list((place / "kept").iterdir())) == 2


def test_all_files_of_weights_are_looked_at(place: Path) -> None:
    """Also where several have one name, and where a node has its own."""
    model = onnx.load(str(place / "b.onnx"))
    kernel, dense, bias, _ = model.graph.initializer
    constant = onnx.helper.make_node("Constant", [], [bias.name], value=bias)
    model.graph.initializer.remove(bias)
    model.graph.node.insert(0, constant)
    weights = [kernel, dense, model.graph.node[0].attribute[0].t]
    for number, tensor in enumerate(weights):
        file = place / f"{number}/weights.bin"
        file.parent.mkdir()
        file.write_bytes(tensor.raw_data)
        set_external_data(tensor, location=f"{number}/weights.bin")
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
    onnx.save(model, place / "b.onnx")
    command = ("b", "--reference", "b.onnx", "--images", "in", "--answers", "answers")
    parity(*command)
    for number in range(len(weights)):
        file = place / f"{number}/weights.bin"
        file.write_bytes((np.frombuffer(file.read_bytes(), np.float32) * 2).tobytes())
        CliRunner().invoke(cli, ["parity", *command])
        assert len(list((place / "answers").iterdir())) == 2 + number


def test_answers_are_no_candidate(place: Path) -> None:
    path = record_network(place)
    told = refusal(str(path), "--reference", "b")
    assert "--reference" in told
