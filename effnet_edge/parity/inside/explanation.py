"""The explanation of a difference, and what the tests of both kinds of hypotheses share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity.measures.metrics import sqnr_db

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

# A hypothesis holds if what it leaves unexplained is so far below the signal. Weights stored in
# eight bits leave 40 dB, a wrong hypothesis a few.
EXPLAINED_DB = 30.0


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong: a kind that a program can tell apart, and a sentence for a person.

    The kinds are "shape", "not finite", "padding", "stride", "channel order", "transposed",
    "weights", "bias", "scale", "offset", "saturation", "zero point", "precision", "missing" and
    "values".
    """

    kind: str
    text: str


def order_of(expected: Array, found: Array, axis: int) -> list[int] | None:
    """The order of the expected channels that makes them the found ones; None if there is none."""
    if expected.shape[axis] < 2:
        return None
    ref, cand = (
        np.moveaxis(each, axis, 0).reshape(each.shape[axis], -1) for each in (expected, found)
    )
    distance = np.square(ref).sum(1)[None] - 2 * cand @ ref.T + np.square(cand).sum(1)[:, None]
    order = [int(index) for index in distance.argmin(1)]
    if order == sorted(order) or sorted(order) != list(range(len(order))):
        return None
    return order if sqnr_db(ref[order], cand) >= EXPLAINED_DB else None


def order_text(order: list[int]) -> str:
    """Tell an order of channels in words, after "its channels"."""
    count = len(order)
    if order == list(range(count))[::-1]:
        rgb = " (BGR instead of RGB)" if count == 3 else ""
        return f"are in reverse order{rgb}"
    moved = [index for index, source in enumerate(order) if index != source]
    if len(moved) == 2:
        return f"{moved[0]} and {moved[1]} are swapped"
    return f"are in another order: {len(moved)} of {count} are not in their place"


def ratio(expected: Array, found: Array) -> float:
    """The factor k that makes k·expected come nearest to found, by least squares."""
    energy = float(np.vdot(expected, expected))
    return float(np.vdot(expected, found)) / energy if energy else 1.0


def sizes(array: Array) -> str:
    """Tell a shape as in "1×3×224×224"."""
    return "×".join(str(size) for size in array.shape)
