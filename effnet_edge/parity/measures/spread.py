"""How large an error of classes is next to what tells the pictures apart.

An offset that the answers to all pictures share counts as signal in the SQNR: what hardly looks at
the pictures is close to every answer of a model whose logits have a large one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity.measures.formula import Formula
from effnet_edge.parity.measures.values import Moments, nrmse

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _share(*partial: float) -> float:
    moments = Moments.unflat(*partial)
    noise, deviations = float(moments.noise.sum()), float(moments.products[0].sum())
    if deviations == 0:
        return math.inf if noise > 0 else math.nan
    return math.sqrt(noise / deviations)


spread_error = Formula(nrmse.partial, nrmse.join, _share)
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
