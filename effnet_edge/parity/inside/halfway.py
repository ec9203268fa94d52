"""Values that every engine rounds to the same integer.

Where a value lies halfway between two integers, the last bit of how an engine computes decides
which one it becomes, and both are right. Two models are compared on values that lie elsewhere, so
that what still differs is a fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from effnet_edge.parity.inside.tracing import Activations, Grid

# In steps. Far above what FP32 leaves open among 65536 levels, 0.004, and still a small change.
_MARGIN = 0.02


def away_from_halfway(values: Activations, grids: Iterable[Grid]) -> Activations:
    """The values, those of tensors with a grid moved by at most 0.02 steps away from halfway."""
    moved = dict(values)
    for grid in grids:
        if grid.tensor in moved:
            moved[grid.tensor] = _moved(moved[grid.tensor], grid)
    return moved


def _moved(values: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
    step = (grid.high - grid.low) / (grid.levels - 1)
    if not step > 0:  # a broken grid, which is judged elsewhere, and so is one with a NaN
        return values
    with np.errstate(invalid="ignore"):  # what is infinite stays as it is
        halves = np.floor((values.astype(np.float64) - grid.low) / step) + 0.5
        distance = values - (grid.low + halves * step)
    near = np.abs(distance) < _MARGIN * step
    side = np.where(distance < 0, -_MARGIN, _MARGIN) * step
    return np.where(near, values - distance + side, values).astype(values.dtype)
