"""`parity` of models that other people exported, and of checkpoints that tell what they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import geffnet
import onnx
import pytest
import torch
from foreign_models import Foreign
from own_models import trained
from real_commands import error_lines, run_command
from reference_models import picture

from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, translate

if TYPE_CHECKING:
    from pathlib import Path

    from real_commands import Run

pytestmark = pytest.mark.sample

SIDE = 64
CLASSES = 7


def test_files_of_other_inputs_and_ends_are_compared_and_told(
    effnet_edge: Run, tmp_path: Path
) -> None:
    Foreign().saved(tmp_path / "plain.onnx")
    Foreign("float16").saved(tmp_path / "half.onnx")
    Foreign("uint8", "nhwc", "0..255", end=("Softmax",)).saved(tmp_path / "shares[1].onnx")
    Foreign(layout="nhwc", end=("Softmax",), also_logits=True).saved(tmp_path / "two.xml")
    models = ("half.onnx", "shares[1].onnx", "two.xml", "--reference", "plain.onnx")
    limits = ("--limit", "4", "--min-sqnr", "30")

    chosen = ("--output", "two.xml=logits", "--report", "page.html")
    completed = effnet_edge("parity", *models, *limits, *chosen)

    assert completed.returncode == 0, completed.stderr
    lines = completed.stdout.splitlines()
    assert "shares[1].onnx takes uint8 NHWC (N, 24, 24, 3), pixels of 0..255" in lines
    assert "shares[1].onnx ends in a softmax: all models are compared as probabilities" in lines
    assert "half.onnx takes float16 NCHW (N, 3, 24, 24), normalized pixels" in lines
    assert any(line.startswith("two.xml: SQNR of the probabilities ") for line in lines)
    document = json.loads((tmp_path / "page.parity.json").read_text())
    assert document["as_probabilities"] is True
    assert [(each["model"], each["ending"]) for each in document["files"]] == [
        ("half.onnx", None),
        ("shares[1].onnx", "softmax"),
        ("two.xml", None),
        ("plain.onnx", None),
    ]
    assert "max |Δprobability|" in (tmp_path / "page.junit.xml").read_text()


def _no_weights(folder: Path) -> tuple[str, ...]:
    onnx.save_model(
        Foreign().model(),
        folder / "bad.onnx",
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
    )
    (folder / "weights").unlink()
    return ("bad.onnx",)


def _two_outputs(folder: Path) -> tuple[str, ...]:
    Foreign(end=("Softmax",), also_logits=True).saved(folder / "bad.onnx")
    return ("bad.onnx",)


def _two_variants(_: Path) -> tuple[str, ...]:
    return ("b0", "--variant", "b1")


@pytest.mark.parametrize(
    ("make", "code", "told"),
    [
        (_no_weights, 1, "bad.onnx: the files with its weights cannot be read"),
        (_two_outputs, 2, "bad.onnx has 2 outputs ('end0', 'logits'): give --output NAME"),
        (_two_variants, 2, "b0 and b1: name one variant"),
    ],
    ids=["no weights", "two outputs", "two variants"],
)
def test_what_cannot_be_compared_is_one_line(
    make: object, code: int, told: str, effnet_edge: Run, tmp_path: Path
) -> None:
    models = make(tmp_path)  # type: ignore[operator]
    completed = effnet_edge("parity", *models, "--reference", models[0])

    assert completed.returncode == code
    (line,) = error_lines(completed.stderr)
    assert told in line


def as_geffnet_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Trained weights, as those of a random network amplify roundings beyond any gate."""
    first = {
        f"classifier.{part}": state[f"classifier.{part}"][:CLASSES] for part in ("weight", "bias")
    }
    geffnet_naming = next(each for each in NAMING_SCHEMES if each.name == "geffnet")
    names = translate(state, geffnet_naming)
    return {theirs: (state | first)[ours] for ours, theirs in names.items()}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of PyTorch's padding and seven classes, exported by PyTorch and by us."""
    folder = tmp_path_factory.mktemp("own")
    network = geffnet.create_model("efficientnet_b0", num_classes=CLASSES).eval()
    network.load_state_dict(as_geffnet_names(trained()), strict=False)
    torch.save(network.state_dict(), folder / "own.pth")
    torch.onnx.export(network, (picture(SIDE),), folder / "own.onnx", dynamo=False)
    options = ("--weights", "own.pth", "--padding", "symmetric", "--resolution", str(SIDE))
    target = ("--target", "onnxruntime", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5")
    completed = run_command("export", "b0", *options, *target, "-o", "bundle", cwd=folder)
    assert completed.returncode == 0, completed.stderr
    return folder


def test_parity_knows_what_the_checkpoint_and_the_options_tell(own: Path) -> None:
    for words in (
        ("b0", "--weights", "own.pth", "--reference", "own.onnx", "--padding", "symmetric"),
        ("own.onnx", "--reference", "own.pth", "--padding", "symmetric"),
        ("own.onnx", "--reference", "bundle"),
        ("b0", "--reference", "bundle"),
    ):
        limits = ("--limit", "2", "--min-sqnr", "60", "--json")
        completed = run_command("parity", *words, *limits, cwd=own)
        assert completed.returncode == 0, completed.stdout + completed.stderr
        assert json.loads(completed.stdout)["candidates"][0]["classes"] == CLASSES


@pytest.mark.slow
def test_sensitivity_knows_it_too(own: Path) -> None:
    words = ("--weights", "own.pth", "--padding", "symmetric", "--resolution", str(SIDE))
    few = ("--limit", "2", "--calibration-size", "2", "--json")
    completed = run_command("sensitivity", "b0", *words, *few, cwd=own)

    assert completed.returncode == 0, completed.stderr
    assert json.loads(completed.stdout)["costs"]


def test_what_a_bundle_tells_is_not_told_otherwise(own: Path) -> None:
    for words, told in (
        (("bundle", "--num-classes", "3"), "--num-classes goes with a variant"),
        (("bundle", "--padding", "same"), "--padding same goes with a checkpoint"),
        (("b1", "--reference", "bundle"), "b1"),
    ):
        completed = run_command("parity", *words, cwd=own)
        assert completed.returncode == 2, completed.stdout
        assert told in completed.stderr
