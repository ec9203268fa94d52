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
from effnet_edge.runtime.known_answers import KnownAnswers, answers_text, known_pictures
from effnet_export.answering import allowed_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effnet_edge.bundle import EngineCheck, Manifest

CLASSES = 50


class Engine:
    """Answers each known picture with a row of its own, at any batch but one."""

    def __init__(
        self, answers: NDArray[np.float32], manifest: Manifest, wrong_at: int | None = None
    ) -> None:
        self._pixels, self._answers, self._wrong_at = known_pictures(manifest), answers, wrong_at

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        rows = [
            next(i for i, known in enumerate(self._pixels) if np.array_equal(known, each))
            for each in batch
        ]
        answers = self._answers[rows]
        if len(batch) == self._wrong_at:
            answers[-1] = -answers[-1]
        return answers


MANIFEST = manifest(
    precision="int8", batch=BatchRange(1, 2, 4), output=OutputSpec("logits", CLASSES)
)
EXACT = np.random.default_rng(0).normal(size=(4, CLASSES)).astype(np.float32)
SPREAD = EXACT - EXACT.mean(0)


def noisy(decibels: float, seed: int) -> NDArray[np.float32]:
    """The exact answers with noise of so many decibels below what differs between the pictures."""
    noise = np.random.default_rng(seed).normal(size=EXACT.shape)
    power = np.mean(np.square(SPREAD)) * 10 ** (-decibels / 10)
    scaled = noise * np.sqrt(power / np.mean(np.square(noise)))
    return (EXACT + scaled).astype(np.float32)


def checked(
    answers: NDArray[np.float32],
    simulated: NDArray[np.float32],
    exact: NDArray[np.float32] = EXACT,
    described: Manifest = MANIFEST,
    wrong_at: int | None = None,
) -> EngineCheck:
    allowed = allowed_error(exact, simulated, "int8", described.output.kind)
    return KnownAnswers(exact, allowed).check(described, Engine(answers, described, wrong_at).infer)


def rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@given(st.floats(3, 60), st.integers(1, 1000))
def test_noise_like_that_of_the_graph_passes(decibels: float, seed: int) -> None:
    check = checked(noisy(decibels, seed), noisy(decibels, 0))
    assert check.holds
    assert check.rms_error == pytest.approx(rms(SPREAD) * 10 ** (-decibels / 20), rel=0.01)
    least = min(15, decibels - 6)
    assert check.at_most == pytest.approx(rms(SPREAD) * 10 ** (-least / 20), rel=0.01)
    assert check.batch_sizes == (1, 2, 3, 4, 5)


@given(st.floats(3, 60), st.floats(0.2, 20), st.integers(1, 1000))
def test_more_than_that_does_not(decibels: float, beyond: float, seed: int) -> None:
    check = checked(noisy(min(15, decibels - 6) - beyond, seed), noisy(decibels, 0))
    assert not check.holds
    assert "answers otherwise than exported" in str(check)
    assert check.problems()


@pytest.mark.parametrize("answers", [np.full_like(EXACT, np.nan), EXACT[::-1].copy()])
def test_nonsense_does_not(answers: NDArray[np.float32]) -> None:
    assert not checked(answers, EXACT).holds


def test_where_nothing_is_allowed_nothing_may_be_off() -> None:
    exact = np.ones_like(EXACT)
    assert checked(exact, exact, exact).holds
    assert not checked(exact + np.float32(0.1), exact, exact).holds


def test_what_the_pictures_have_in_common_hides_no_error() -> None:
    """The answers of a network that likes some classes best, whatever it sees."""
    exact = EXACT + np.linspace(0, 100, CLASSES, dtype=np.float32)
    assert checked(exact, exact, exact).holds
    assert not checked(exact[::-1].copy(), exact, exact).holds


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_one_wrong_answer_at_one_batch_size_is_found(size: int) -> None:
    check = checked(EXACT, EXACT, wrong_at=size)
    assert (check.holds, check.worst_size) == (False, size)


VALUES = replace(MANIFEST, output=OutputSpec("values", 1, "regression"))
YEARS = np.array([[1999.2], [2000.9], [2000.1], [1999.5]], np.float32)


def test_values_are_held_to_their_spread_and_not_to_their_offset() -> None:
    simulated = YEARS + np.float32([[0.02], [-0.03], [0.01], [0.02]])
    check = checked(YEARS + np.float32(0.01), simulated, YEARS, VALUES)
    assert check.holds
    assert check.at_most == pytest.approx(YEARS.std() * 10 ** (-15 / 20), rel=0.01)
    assert not checked(YEARS[::-1].copy(), simulated, YEARS, VALUES).holds


def test_each_value_is_held_to_its_own_spread() -> None:
    exact = np.concatenate([YEARS, 1000 * YEARS, np.full_like(YEARS, 7)], axis=1)
    described = replace(MANIFEST, output=OutputSpec("values", 3, "regression"))
    simulated = exact * np.float32(1 + 1e-6)
    assert checked(simulated, simulated, exact, described).holds
    for output, off in enumerate((1, 1000, 0.01)):
        answers = exact.copy()
        answers[:, output] += off * np.float32([1, -1, -1, 1])
        check = checked(answers, simulated, exact, described)
        assert not check.holds
        assert check.rms_error == pytest.approx(off, rel=0.1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_pictures_are_of_the_input_and_differ(channels: int) -> None:
    spec = InputSpec("pixels", "uint8", "NHWC", 48, 64, channels)
    pictures = known_pictures(replace(MANIFEST, input=spec))
    assert (pictures.shape, pictures.dtype) == ((4, 48, 64, channels), np.uint8)
    assert len({each.tobytes() for each in pictures}) == 4
    assert all(each.std() > 20 for each in pictures)
    assert known_pictures(MANIFEST).shape[1:3] == (SIDE, SIDE)


def test_the_file_has_every_bit_of_the_answers() -> None:
    document = json.loads(answers_text(EXACT, {"a": np.array([0.1])}))
    np.testing.assert_array_equal(np.asarray(document["exact"], np.float32), EXACT)
    assert document["allowed"] == {"a": [0.1]}
