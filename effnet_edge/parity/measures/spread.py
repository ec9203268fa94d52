"""How large an error of classes is next to what tells the pictures apart.

An offset that the answers to all pictures share counts as signal in the SQNR: what hardly looks at
the pictures is close to every answer of a model whose logits have a large one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity.measures.formula import Formula, Partial

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def _partial(reference: ArrayLike, candidate: ArrayLike) -> Partial:
    ref, cand = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
    with np.errstate(invalid="ignore"):
        # From the first picture on, so that the deviations of a constant are exactly zero.
        means = ref[0] + (ref - ref[0]).mean(0)
        noise, deviations = np.square(ref - cand).sum(), np.square(ref - means).sum()
    return float(len(ref)), float(noise), float(deviations), *means.tolist()


def _join(one: Partial, other: Partial) -> Partial:
    images = one[0] + other[0]
    means, apart = np.array(one[3:]), np.subtract(other[3:], one[3:])
    between = float(np.square(apart).sum()) * one[0] * other[0] / images
    deviations = one[2] + other[2] + between
    return images, one[1] + other[1], deviations, *(means + apart * (other[0] / images)).tolist()


def _share(_images: float, noise: float, deviations: float, *_means: float) -> float:
    if deviations == 0:
        return math.inf if noise > 0 else math.nan
    return math.sqrt(noise / deviations)


spread_error = Formula(_partial, _join, _share)
"""Root mean square error as a share of the reference's spread over the pictures, of all classes.

√(Σ (ref − cand)² / Σ (ref − mean ref)²), the means over the pictures, the sums over pictures and
classes; 1 is as bad as always answering the mean. NaN for the same constant in both, as with a
single picture; infinite where a constant is missed.
"""


def tells_apart(pixels: NDArray[np.uint8]) -> bool:
    """Whether pictures, uint8 (N, H, W, C), differ enough for a model to answer them differently.

    Of copies, frames or crops of one picture, a sound model's answers may lie as close together as
    its own rounding puts them.
    """
    if len(pixels) < 2:
        return False
    values = pixels.astype(np.float32)
    between = float(values.var(axis=0, ddof=1).mean())
    return 0 < _UNLIKE * float(values.var()) <= between


_UNLIKE = 0.8
"""Share of the pixels' variance that is between the pictures: 0.94 or more of photos of different
things, 0.69 or less of crops of one photo up to a seventh of their side beside its middle."""
