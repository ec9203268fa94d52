"""Inputs that are not square, from the checkpoint to the answer, and a height taken for a width."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from real_commands import exported, run_command
from reference_models import geffnet_model

from effnet_edge.bundle import Bundle
from effnet_edge.errors import BundleError, UsageError
from effnet_edge.runtime import EngineRunner
from effnet_edge.size import Size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from real_commands import Run

pytestmark = pytest.mark.sample

both_bundles = pytest.mark.parametrize(
    "bundle_of", ["padded", pytest.param("wide_int8", marks=pytest.mark.slow)]
)

# One height is odd, so that SAME padding is another along it than along the width.
ODD = Size(65, 96)
WIDE = Size(96, 128)


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for ONNX Runtime, of a network that geffnet made, beside its checkpoint."""
    folder = tmp_path_factory.mktemp("padded")
    torch.manual_seed(5)
    torch.save(geffnet_model("b0", num_classes=7).state_dict(), folder / "theirs.pth")
    options = ("--weights", "theirs.pth", "--resolution", "65x96", "--fit", "pad")
    more = ("--target", "onnxruntime", "--batch", "1:2:4", "-o", "bundle")
    completed = run_command("export", "b0", *options, *more, cwd=folder)
    assert completed.returncode == 0, completed.stderr
    return folder / "bundle"


@pytest.fixture(scope="module")
def wide_int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ("--int8", "--resolution", "96x128", "--calibration-size", "40")
    return exported(tmp_path_factory, "wide-int8", *options)


def test_the_answer_is_geffnets_for_a_picture_that_pillow_padded(
    padded: Path, espresso: Path
) -> None:
    picture = Image.open(espresso).convert("RGB")
    scale = min(ODD.height / picture.height, ODD.width / picture.width)
    size = (round(picture.width * scale), round(picture.height * scale))
    letterbox = Image.new("RGB", (ODD.width, ODD.height), (124, 116, 104))
    corner = ((ODD.width - size[0]) // 2, (ODD.height - size[1]) // 2)
    letterbox.paste(picture.resize(size, Image.Resampling.BICUBIC), corner)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    values = ((np.asarray(letterbox) / 255 - mean) / std).transpose(2, 0, 1)[None]
    theirs = geffnet_model("b0", num_classes=7)
    theirs.load_state_dict(torch.load(padded.parent / "theirs.pth"))
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(values).float()).softmax(1)[0].numpy()

    with EngineRunner.load(padded) as run:
        found = run.classify(espresso, top=7)

    probabilities = {each.index: each.probability for each in found}
    np.testing.assert_allclose([probabilities[i] for i in range(7)], expected, atol=1e-4)


@pytest.mark.slow
def test_an_int8_rectangle_is_exported_and_knows_its_picture(
    effnet_edge: Run, wide_int8: Path, espresso: Path
) -> None:
    manifest = Bundle.load(wide_int8).manifest
    assert Size(manifest.input.height, manifest.input.width) == WIDE
    assert manifest.preprocessing.resolution == WIDE
    table = json.loads((wide_int8 / "calibration.json").read_text())
    assert table["model"]["resolution"] == {"height": 96, "width": 128}

    answers = json.loads(effnet_edge("predict", wide_int8, espresso, "--json").stdout)
    assert "espresso" in answers["images"][str(espresso)][0]["label"]
    assert "96×128 px" in effnet_edge("info", wide_int8).stdout
    held = effnet_edge("parity", wide_int8, "--limit", "8", "--min-sqnr", "8")
    assert held.returncode == 0, held.stdout + held.stderr


@pytest.mark.slow
def test_the_table_makes_the_same_rectangle_again_and_no_other(
    effnet_edge: Run, wide_int8: Path, tmp_path: Path
) -> None:
    table = ("--int8", "--calibration", wide_int8 / "calibration.json")
    again = effnet_edge("export", "b0", "--resolution", "96x128", *table, "-o", "again")
    assert again.returncode == 0, again.stderr
    for file in ("model.xml", "model.bin"):
        assert (tmp_path / "again" / file).read_bytes() == (wide_int8 / file).read_bytes()

    turned = effnet_edge("export", "b0", "--resolution", "128x96", *table, "-o", "turned")
    assert turned.returncode == 1
    assert "its resolution is 96×128, the network's is 128×96" in turned.stderr


def test_a_rectangle_in_a_model_file_is_found(effnet_edge: Run, padded: Path) -> None:
    network = ("--weights", padded.parent / "theirs.pth", "--num-classes", "7", "--limit", "4")
    model = padded / "model.onnx"

    alike = effnet_edge("parity", model, *network, "--min-sqnr", "60")
    assert alike.returncode == 0, alike.stdout + alike.stderr

    turned = effnet_edge("parity", model, *network, "--resolution", "96x65")
    assert turned.returncode != 0
    assert "model.onnx" in turned.stderr
    assert "Traceback" not in turned.stderr


def test_a_graph_that_pads_the_height_as_the_width_is_found(
    effnet_edge: Run, padded: Path, tmp_path: Path
) -> None:
    model = onnx.load(padded / "model.onnx")
    stem = next(node for node in model.graph.node if node.op_type == "Conv")
    pads = next(each for each in stem.attribute if each.name == "pads")
    top, left, bottom, right = pads.ints
    assert (top, bottom) != (left, right)
    pads.ints[:] = [left, top, right, bottom]
    onnx.save(model, tmp_path / "turned.onnx")
    network = ("--weights", padded.parent / "theirs.pth", "--num-classes", "7", "--limit", "4")

    found = effnet_edge("parity", "turned.onnx", *network, "--min-sqnr", "60")

    assert found.returncode == 1
    assert "stem.conv" in found.stdout + found.stderr


@both_bundles
def test_turned_pictures_are_refused(request: pytest.FixtureRequest, bundle_of: str) -> None:
    bundle = request.getfixturevalue(bundle_of)
    with EngineRunner.load(bundle) as run:
        size = run.manifest.preprocessing.resolution
        assert run.infer(np.zeros((1, size.height, size.width, 3), np.uint8)).shape[0] == 1
        with pytest.raises(UsageError, match=rf"\(N, {size.height}, {size.width}, 3\)"):
            run.infer(np.zeros((1, size.width, size.height, 3), np.uint8))


@both_bundles
def test_a_manifest_that_turns_the_input_is_refused(
    request: pytest.FixtureRequest, bundle_of: str, copy_of: Callable[[Path], Path]
) -> None:
    bundle = copy_of(request.getfixturevalue(bundle_of))
    manifest = bundle / "manifest.json"
    document = json.loads(manifest.read_text())
    for sides in (document["input"], document["preprocessing"]["resolution"]):
        sides["height"], sides["width"] = sides["width"], sides["height"]
    manifest.write_text(json.dumps(document))

    with pytest.raises(BundleError, match=r"its input is uint8 .* and manifest\.json says uint8"):
        EngineRunner.load(bundle)


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    import shutil

    return lambda path: shutil.copytree(path, tmp_path / "copy")
