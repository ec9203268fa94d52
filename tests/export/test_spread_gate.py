"""Noise as large as what tells the pictures apart, behind an offset that all answers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from effnet_edge.errors import GateError
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.pictures.image import Preprocessing
from effnet_export.gate import (
    FAST_BY_DEFAULT,
    FITTED_ACTIVATIONS,
    HALF_PRECISION,
    INT8,
    ParityGate,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity import Gate
    from effnet_edge.pictures.protocol import Batch

PREPROCESSING = Preprocessing(64, 1.0, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLASSES = 10
OFFSETS: dict[OutputKind, np.ndarray] = {
    "single-label": np.full(CLASSES, 5.0),
    "multi-label": np.array([0.0] + [-5.0] * (CLASSES - 1)),
}
UNSURE, SURE = OFFSETS["single-label"], np.linspace(-12, 12, CLASSES)


class OffsetModel:
    """What tells pictures apart is small beside an offset, and so is the noise."""

    name, execution_precision = "offset", "int8"

    def __init__(self, offset: np.ndarray, noise: float = 0.0) -> None:
        self._offset = offset
        self._noise = noise

    def infer(self, batch: np.ndarray) -> np.ndarray:
        cells = batch.reshape(len(batch), 4, 16, 4, 16, 3).mean((2, 4)).reshape(len(batch), -1)
        centred = (cells - cells.mean(1, keepdims=True)) / 255
        own, other = np.random.default_rng(0).normal(0, 0.02, (2, centred.shape[1], CLASSES))
        return (self._offset + centred @ (own + self._noise * other)).astype(np.float32)


class Frames:
    """A still scene before a camera whose pixels flicker."""

    source = "frames"
    labels = None

    def __len__(self) -> int:
        return 16

    def subset(self, count: int) -> Frames:
        assert count >= len(self)
        return self

    def batches(self, preprocessing: Preprocessing, *_: object) -> Iterator[Batch]:
        photo, _labels = next(iter(EmbeddedPhotos(1).batches(preprocessing, 1)))
        flicker = np.random.default_rng(0).integers(-3, 4, (len(self), *photo.shape[1:]))
        yield np.clip(photo + flicker, 0, 255).astype(np.uint8), None


@pytest.mark.parametrize("gates", [HALF_PRECISION, FITTED_ACTIVATIONS, FAST_BY_DEFAULT, INT8])
@pytest.mark.parametrize("output", OFFSETS)
def test_noise_behind_an_offset_is_stopped_that_no_other_limit_sees(
    output: OutputKind, gates: Mapping[OutputKind, Gate]
) -> None:
    sound, broken = (OffsetModel(OFFSETS[output], noise) for noise in (0.0, 1.5))
    gate = ParityGate(sound, EmbeddedPhotos(16), PREPROCESSING, output)
    assert gates[output].check(gate.loss(broken)) == []
    told = r"^engine changed the model: RMSE / spread 1\.\d+ is above the 1.* allowed$"
    with pytest.raises(GateError, match=told):
        gate.check("engine", broken, gates)


def test_what_a_sound_engine_rounds_passes_and_is_told_with_its_limit() -> None:
    gate = ParityGate(OffsetModel(UNSURE), EmbeddedPhotos(16), PREPROCESSING)
    stage = gate.check("engine", OffsetModel(UNSURE, noise=0.25), INT8)
    assert stage.value("top1_agreement") < 1
    assert stage.measures["spread_error"].at_most == 1.0
    assert stage.value("spread_error") == pytest.approx(0.25, rel=0.3)


def test_answers_that_are_all_sure_need_no_spread() -> None:
    """As of pictures of one class alone, which a trained network answers alike."""
    gate = ParityGate(OffsetModel(SURE), EmbeddedPhotos(16), PREPROCESSING)
    stage = gate.check("engine", OffsetModel(SURE, noise=1.5), INT8)
    assert "spread_error" not in stage.measures


def test_pictures_that_are_alike_need_no_spread() -> None:
    gate = ParityGate(OffsetModel(UNSURE), Frames(), PREPROCESSING)
    stage = gate.check("engine", OffsetModel(UNSURE, noise=1.5), INT8)
    assert "spread_error" not in stage.measures
