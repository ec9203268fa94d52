"""`effnet-edge parity` where most pictures cannot be read: all checks draw from the rest."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import onnx
import pytest
from click.testing import CliRunner
from picture_makers import folder_of_noise
from tiny_bundles import PREPROCESSING, SIDE, tiny_model, write_bundle

from effnet_edge.cli.main import cli
from effnet_edge.pictures.few import readable
from effnet_edge.pictures.sets import ImageSet

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures among 200 that are none; a draw of sixteen has none of the three."""
    folder = folder_of_noise(tmp_path / "photos", 3, SIDE)
    sound = sorted(folder.iterdir())
    for index in range(200):
        (folder / f"{index:03}.png").write_bytes(b"no picture")
    for path, index in zip(sound, (11, 77, 150), strict=True):
        shutil.move(path, folder / f"{index:03}.png")
    return folder


def only_wrong_at(size: int) -> onnx.ModelProto:
    """The tiny model, whose logits have the other sign in batches of one size."""
    model = tiny_model(batch="N")
    pixels, logits = model.graph.input[0].name, model.graph.output[0].name
    for operator, inputs, output in (
        ("Shape", [pixels], "shape"),
        ("Gather", ["shape", "first"], "images"),
        ("Equal", ["images", "wrong_size"], "is_wrong"),
        ("Neg", [logits], "negative"),
        ("Where", ["is_wrong", "negative", logits], "answers"),
    ):
        model.graph.node.append(onnx.helper.make_node(operator, inputs, [output]))
    for name, value in (("first", 0), ("wrong_size", size)):
        model.graph.initializer.append(
            onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [], [value])
        )
    model.graph.output[0].name = "answers"
    return model


def parity(tmp_path: Path, photos: Path, model: onnx.ModelProto, *options: str) -> Result:
    reference = write_bundle(tmp_path / "reference", "onnxruntime", tiny_model(batch="N"))
    onnx.save(model, tmp_path / "candidate.onnx")
    words = ["parity", tmp_path / "candidate.onnx", "--reference", reference, "--images", photos]
    return CliRunner().invoke(cli, [*map(str, words), "--json", *options])


def test_readable_pictures_are_drawn_until_there_are_enough(photos: Path) -> None:
    pictures = ImageSet.from_folder(photos)

    assert len(readable(pictures, 2, PREPROCESSING)) == 2
    assert len(readable(pictures, 16, PREPROCESSING)) == 3
    for path in photos.iterdir():
        path.write_bytes(b"no picture")
    assert readable(pictures, 16, PREPROCESSING).pixels.shape == (0, SIDE, SIDE, 3)


def test_a_model_that_is_wrong_at_one_batch_size_fails(tmp_path: Path, photos: Path) -> None:
    done = parity(tmp_path, photos, only_wrong_at(1), "--max-kl", "0.1")

    assert done.exit_code == 1, done.output
    (candidate,) = json.loads(done.stdout)["candidates"]
    assert [each["size"] for each in candidate["batch_sizes"] if each["failures"]] == [1]


@pytest.mark.parametrize("options", [(), ("--bisect",), ("--speed",), ("--layers",)], ids=" ".join)
def test_what_is_asked_for_is_looked_at_and_the_gates_are_told(
    tmp_path: Path, photos: Path, options: tuple[str, ...]
) -> None:
    other = tiny_model(batch="N")
    other.graph.node[-1].attribute.append(onnx.helper.make_attribute("alpha", -1.0))
    done = parity(tmp_path, photos, other, "--max-kl", "0.0001", *options)

    assert done.exit_code == 1, done.output
    (candidate,) = json.loads(done.stdout)["candidates"]
    assert any("KL divergence" in each for each in candidate["failures"])
    assert candidate["faults"] is not None
    assert bool(candidate["layers"]) == ("--layers" in options)
    assert (candidate["cost"]["times_as_fast"] is not None) == ("--speed" in options)
