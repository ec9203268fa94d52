"""Grids of a LiteRT model that are too far apart, at which LiteRT ends the process."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_models import model_of_integers
from tiny_bundles import SIDE

from effnet_edge.errors import BundleError
from effnet_edge.graphs.litert_file import pack, unpack
from effnet_edge.runtime.demand.litert_steps import checked_litert
from effnet_edge.runtime.litert_interpreter import LiteRtInterpreter
from effnet_export.litert.writing import litert_file

HARD, SMOOTH = True, False


@cache
def sound(hard: bool) -> bytes:
    return litert_file(model_of_integers("N", hard=hard))


def of_integers(model: Any) -> list[Any]:
    """The tensors that have a grid."""
    tensors = model.subgraphs[0].tensors
    return [each for each in tensors if each.quantization and each.quantization.scale is not None]


def with_scale(hard: bool, number: int, scale: float) -> bytes:
    model = unpack(sound(hard))
    grid = of_integers(model)[number].quantization
    grid.scale = np.full(len(grid.scale), scale, np.float32)
    return pack(model)


def answers(content: bytes) -> None:
    checked_litert(content, "model.tflite")
    interpreter = LiteRtInterpreter(content, 1)
    interpreter.run([np.zeros((2, SIDE, SIDE, 3), np.uint8)])


@settings(deadline=None, max_examples=300)
@given(
    hard=st.booleans(),
    number=st.integers(0, 20),
    scale=st.floats(2.0**-149, 2.0**127) | st.integers(-149, 127).map(lambda power: 2.0**power),
)
def test_any_scale_is_refused_or_runs(hard: bool, number: int, scale: float) -> None:
    places = len(of_integers(unpack(sound(hard))))
    try:
        answers(with_scale(hard, number % places, scale))
    except (BundleError, RuntimeError, ValueError) as error:  # the last two are LiteRT's own
        told = str(error)
    else:
        return
    assert told


def place(hard: bool, name: str) -> int:
    names = [each.name.decode() for each in of_integers(unpack(sound(hard)))]
    return names.index(name)


@pytest.mark.parametrize(
    ("hard", "name", "scale", "kind"),
    [
        (HARD, "conv", 2.0**20, "ADD"),
        (HARD, "gate", 2.0**-30, "ADD"),
        (HARD, "gate", 2.0**126, "ADD"),
        (HARD, "conv", 2.0**-30, "CONV_2D"),
        (SMOOTH, "conv", 2.0**-30, "CONV_2D"),
        (SMOOTH, "values/Q", 2.0**10, "CONV_2D"),
    ],
)
def test_steps_that_overflow_are_told(hard: bool, name: str, scale: float, kind: str) -> None:
    with pytest.raises(BundleError, match=rf"{kind}, reads steps of .* and makes steps of"):
        answers(with_scale(hard, place(hard, name), scale))


@pytest.mark.parametrize("name", ["values/Q", "conv"])
def test_a_scale_without_an_inverse_is_told(name: str) -> None:
    with pytest.raises(BundleError, match="a scale that is none"):
        answers(with_scale(SMOOTH, place(SMOOTH, name), 2.0**-140))


def test_the_sound_ones_run() -> None:
    for hard in (HARD, SMOOTH):
        answers(sound(hard))
        assert pack(unpack(sound(hard))) == sound(hard)
