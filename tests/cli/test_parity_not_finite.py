"""`effnet-edge parity` of a model that answers one picture with a NaN: every number says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
from click.testing import CliRunner
from picture_makers import folder_of_noise
from tiny_bundles import PREPROCESSING, SIDE, tiny_model, truth, write_bundle

from effnet_edge.cli.main import cli
from effnet_edge.pictures.sets import ImageSet

if TYPE_CHECKING:
    from pathlib import Path


def nan_above(limit: float) -> onnx.ModelProto:
    """The tiny model, with a NaN in the place of first logits that are larger."""
    model = tiny_model(batch="N")
    logits = model.graph.output[0].name
    for operator, inputs, output in (
        ("Greater", [logits, "limit"], "is_large"),
        ("And", ["is_large", "is_first"], "is_broken"),
        ("Where", ["is_broken", "nan", logits], "answers"),
    ):
        model.graph.node.append(onnx.helper.make_node(operator, inputs, [output]))
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name)
        for name, value in (
            ("limit", np.float32(limit)),
            (
                "is_first",
                np.arange(model.graph.output[0].type.tensor_type.shape.dim[1].dim_value) == 0,
            ),
            ("nan", np.float32(np.nan)),
        )
    )
    model.graph.output[0].name = "answers"
    return model


def test_the_numbers_agree_about_it_and_the_node_is_found(tmp_path: Path) -> None:
    photos = folder_of_noise(tmp_path / "photos", 30, SIDE)
    pixels, _ = next(ImageSet.from_folder(photos).batches(PREPROCESSING, 30))
    first = truth(tiny_model(batch="N"), pixels)[:, 0]
    largest = np.sort(first)[-2:]
    broken = f"{sorted(photos.iterdir())[int(first.argmax())]}"
    onnx.save(nan_above(float(largest.mean())), tmp_path / "candidate.onnx")
    reference = write_bundle(tmp_path / "reference", "onnxruntime", tiny_model(batch="N"))
    words = ["parity", tmp_path / "candidate.onnx", "--reference", reference, "--images", photos]
    words += ["--jsonl", tmp_path / "lines.jsonl", "--json"]

    done = CliRunner().invoke(cli, list(map(str, words)))

    assert done.exit_code == 1, done.output
    (candidate,) = json.loads(done.stdout)["candidates"]
    assert candidate["flipped"] == candidate["candidate_nonfinite"] == 1
    assert [each["candidate"] for each in candidate["flips"]] == [None]
    assert any(each["kind"] == "not finite" for each in candidate["faults"])
    lines = [json.loads(each) for each in (tmp_path / "lines.jsonl").read_text().splitlines()[1:]]
    (told,) = (each["candidates"][0] for each in lines if each["image"] == broken)
    assert (told["index"], told["label"], told["probability"]) == (None, None, None)
