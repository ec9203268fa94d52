"""Exports compared on, and typed by, sets of which some pictures cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from test_fp16 import PREPROCESSING, SIDE, chain

from effnet_edge.errors import UsageError
from effnet_edge.pictures.sets import ImageSet
from effnet_export.fp16 import type_fp16
from effnet_export.gate import ParityGate

if TYPE_CHECKING:
    from pathlib import Path


class Means:
    """Gives each picture the mean of each colour."""

    name, execution_precision = "means", "FP32"

    def infer(self, batch: np.ndarray) -> np.ndarray:
        return batch.mean((1, 2)).astype(np.float32)


def pictures(folder: Path, good: int, damaged: int) -> ImageSet:
    random = np.random.default_rng(0)
    for index in range(good):
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"good{index}.png")
    for index in range(damaged):
        (folder / f"bad{index}.png").write_bytes(b"not really")
    return ImageSet.from_folder(folder)


def test_a_gate_tells_how_many_of_its_pictures_cannot_be_read(tmp_path: Path) -> None:
    gate = ParityGate(Means(), pictures(tmp_path, 3, 2), PREPROCESSING)
    assert gate.source == f"{tmp_path} (2 of them cannot be read)"
    assert gate.check("same", Means()).images == 3


def test_a_gate_of_pictures_that_cannot_be_read_names_the_first(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none of the 2 pictures in .* can be read: .*bad0\.png"):
        ParityGate(Means(), pictures(tmp_path, 0, 2), PREPROCESSING)


def test_fp16_is_typed_by_the_pictures_that_can_be_read(tmp_path: Path) -> None:
    model = chain(1.0, 3e5, 1e-5, 1.0)
    (tmp_path / "some").mkdir()
    (tmp_path / "none").mkdir()

    typed = type_fp16(model, pictures(tmp_path / "some", 3, 1), PREPROCESSING)

    assert {"part1", "part2"} <= set(typed.overflowing)
    with pytest.raises(UsageError, match=r"none of the 1 pictures in .* can be read"):
        type_fp16(model, pictures(tmp_path / "none", 0, 1), PREPROCESSING)
