"""Whether a tensor is rounded to the integers that it should be rounded to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity.inside.explanation import Diagnosis
from effnet_edge.parity.measures.metrics import sqnr_db

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from effnet_edge.parity.inside.tracing import Grid

# A grid may leave out a few outliers: calibration chooses it for the least error, not for the
# largest value.
_CLIPPED_DB = 15.0


def counterparts(grid: Grid, others: Sequence[Grid]) -> list[Grid]:
    """The grids of another model for the same node or, where it has other names, tensor."""
    same_node = [other for other in others if other.node == grid.node]
    return same_node or [other for other in others if other.tensor == grid.tensor]


def compare_grids(rights: Sequence[Grid], grid: Grid) -> Diagnosis | None:
    """What differs from the first of these grids, or None where one of them is the same."""
    told = [_compare(right, grid) for right in rights]
    return None if None in told else told[0]


def _compare(right: Grid, grid: Grid) -> Diagnosis | None:
    right_step, step = ((each.high - each.low) / (each.levels - 1) for each in (right, grid))
    if not math.isclose(step, right_step, rel_tol=1e-4):
        times = f" ({step / right_step:.3g} times that)" if right_step > 0 else ""
        return Diagnosis("scale", f"its scale is {step:.4g} and should be {right_step:.4g}{times}")
    shift = round((right.low - grid.low) / step) if step > 0 else 0
    if shift:
        return Diagnosis("zero point", f"its zero point is off by {shift} of {grid.levels} levels")
    return None


def saturation(grid: Grid, values: NDArray[np.float32]) -> Diagnosis | None:
    """Say what a grid cuts off of the values, where no right grid is known to compare it with."""
    clipped = np.clip(values, grid.low, grid.high)
    low, high = float(values.min()), float(values.max())
    if sqnr_db(values, clipped) < _CLIPPED_DB:
        share = float(np.mean((values < grid.low) | (values > grid.high)))
        return Diagnosis(
            "saturation",
            f"it clips {100 * share:.2g} % of the values to {grid.low:.4g} … {grid.high:.4g}; "
            f"they reach from {low:.4g} to {high:.4g}",
        )
    return None
