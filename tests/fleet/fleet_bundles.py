"""Plans, small bundles, pictures and recorded answers, so that a fleet needs no PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper
from PIL import Image
from tiny_bundles import PREPROCESSING, SIDE, manifest, tiny_model, truth, write_bundle

from effnet_edge.parity.models.answer_file import Answerer, AnswerFile, picture_key
from effnet_edge.pictures.sets import ImageSet
from effnet_export.recording import identity_of_manifest

if TYPE_CHECKING:
    from pathlib import Path

PICTURES = 6


def write_pictures(folder: Path) -> Path:
    """A few pictures of noise, in colours of their own."""
    random = np.random.default_rng(3)
    folder.mkdir()
    for index in range(PICTURES):
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def record_answers(pictures: Path, path: Path) -> Path:
    """What the tiny network answers, by the reference implementation of the ONNX standard."""
    identity = identity_of_manifest(manifest())
    file = AnswerFile.opened_for(
        path, Answerer("torch", "FP32", "single-label", 5, False, None, identity)
    )
    for pixels, _ in ImageSet.from_folder(pictures).batches(PREPROCESSING, 1):
        file.add(picture_key(pixels[0]), truth(tiny_model(), pixels)[0])
    file.close()
    return path


def wrong_model() -> onnx.ModelProto:
    """The tiny network with the signs of its last layer turned: sound, and another network."""
    model = tiny_model()
    for constant in model.graph.initializer:
        if constant.name == "dense":
            turned = -numpy_helper.to_array(constant)
            constant.CopyFrom(numpy_helper.from_array(turned, "dense"))
    return model


def write_fleet(folder: Path, bundles: tuple[str, ...] = ("one", "two"), more: str = "") -> Path:
    """A plan of sound bundles for this machine, with pictures and answers; `more` is TOML."""
    record_answers(write_pictures(folder / "pictures"), folder / "tiny.answers")
    for name in bundles:
        write_bundle(folder / name, "onnxruntime", tiny_model())
    return write_plan(folder, bundles, more)


def write_plan(folder: Path, bundles: tuple[str, ...], more: str = "") -> Path:
    """A plan that holds the bundles to an agreement, and to an SQNR that rounding keeps."""
    listed = "".join(f'[[bundle]]\npath = "{name}"\n' for name in bundles)
    plan = folder / "plan.toml"
    plan.write_text(
        f'{more}\n[pictures]\nimages = "pictures"\nanswers = "tiny.answers"\nbatch-size = 2\n'
        f"[gate]\nmin-agreement = 100\nmin-sqnr = 60\n[bench]\nruns = 2\n{listed}"
    )
    return plan
