"""An engine may be as far from the network as its graph is, but for chance, and no farther."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundles import SIDE, manifest

from effnet_edge.bundle import BatchRange, InputSpec, OutputSpec
from effnet_edge.choosing.known_answers import (
    Expected,
    answers_text,
    check_answers,
    known_pictures,
)
from effnet_edge.errors import GateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = 50


class Engine:
    """Answers each known picture with a row of its own, at any batch."""

    name, execution_precision = "engine", "INT8"

    def __init__(self, answers: NDArray[np.float32]) -> None:
        self._pixels, self._answers = known_pictures(MANIFEST), answers

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        rows = [
            next(i for i, known in enumerate(self._pixels) if np.array_equal(known, each))
            for each in batch
        ]
        return self._answers[rows]


MANIFEST = manifest(
    precision="int8", batch=BatchRange(1, 2, 4), output=OutputSpec("logits", CLASSES)
)
EXACT = np.random.default_rng(0).normal(size=(4, CLASSES)).astype(np.float32)


def noisy(decibels: float, seed: int) -> NDArray[np.float32]:
    """The exact answers with noise of so many decibels below them."""
    noise = np.random.default_rng(seed).normal(size=EXACT.shape)
    power = np.mean(np.square(EXACT)) * 10 ** (-decibels / 10)
    scaled = noise * np.sqrt(power / np.mean(np.square(noise)))
    return (EXACT + scaled).astype(np.float32)


@given(st.floats(3, 60), st.integers(1, 1000))
def test_noise_like_that_of_the_graph_passes(decibels: float, seed: int) -> None:
    expected = Expected(EXACT, noisy(decibels, 0))
    stage = check_answers(Engine(noisy(decibels, seed)), MANIFEST, expected)
    assert stage.holds
    assert stage.value("sqnr_db") == pytest.approx(decibels, abs=0.1)
    assert stage.measures["sqnr_db"].at_least == pytest.approx(min(15, decibels - 6), abs=0.1)
    assert stage.batch_sizes == (1, 2, 3, 4, 5)


@given(st.floats(3, 60), st.floats(0.2, 20), st.integers(1, 1000))
def test_more_than_that_does_not(decibels: float, beyond: float, seed: int) -> None:
    expected = Expected(EXACT, noisy(decibels, 0))
    engine = Engine(noisy(min(15, decibels - 6) - beyond, seed))
    with pytest.raises(GateError, match=r"is not the graph that it was built from: at batch 1"):
        check_answers(engine, MANIFEST, expected)


@pytest.mark.parametrize("answers", [np.full_like(EXACT, np.nan), EXACT[::-1].copy()])
def test_nonsense_does_not(answers: NDArray[np.float32]) -> None:
    with pytest.raises(GateError):
        check_answers(Engine(answers), MANIFEST, Expected(EXACT, EXACT))


VALUES = replace(MANIFEST, output=OutputSpec("values", 1, "regression"))
YEARS = np.array([[1999.2], [2000.9], [2000.1], [1999.5]], np.float32)


def test_values_are_held_to_their_spread_and_not_to_their_offset() -> None:
    expected = Expected(YEARS, YEARS + np.float32([[0.02], [-0.03], [0.01], [0.02]]))
    stage = check_answers(Engine(YEARS + np.float32(0.01)), VALUES, expected)
    assert stage.holds
    assert stage.measures["nrmse"].at_most == pytest.approx(10 ** (-15 / 20), rel=0.01)

    with pytest.raises(GateError, match="RMSE / spread"):
        check_answers(Engine(YEARS[::-1].copy()), VALUES, expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_pictures_are_of_the_input_and_differ(channels: int) -> None:
    spec = InputSpec("pixels", "uint8", "NHWC", 48, 64, channels)
    pictures = known_pictures(replace(MANIFEST, input=spec))
    assert (pictures.shape, pictures.dtype) == ((4, 48, 64, channels), np.uint8)
    assert len({each.tobytes() for each in pictures}) == 4
    assert all(each.std() > 20 for each in pictures)
    assert known_pictures(MANIFEST).shape[1:3] == (SIDE, SIDE)


def test_the_file_has_every_bit_of_the_answers() -> None:
    document = json.loads(answers_text(EXACT, {"a": noisy(20, 1)}))
    np.testing.assert_array_equal(np.asarray(document["exact"], np.float32), EXACT)
    np.testing.assert_array_equal(np.asarray(document["graphs"]["a"], np.float32), noisy(20, 1))
