"""How many times as fast one callable is as another, from calls that took turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class SpeedRatio:
    """One callable's speed over another's.

    Attributes:
        times_as_fast: the median over the rounds of the other's seconds over its own in the same
            round: what the machine did meanwhile hit both.
        middle_half: the quartiles of the same ratios.
        median_seconds: of its own calls.
    """

    times_as_fast: float
    middle_half: tuple[float, float]
    median_seconds: float


def speed_ratios(seconds: Mapping[str, Sequence[float]], baseline: str) -> dict[str, SpeedRatio]:
    """Of each callable against the one called `baseline`, from what `in_turns` gives."""
    own = np.asarray(seconds[baseline])
    return {name: _ratio(own, np.asarray(taken)) for name, taken in seconds.items()}


def _ratio(baseline: np.ndarray, taken: np.ndarray) -> SpeedRatio:
    low, middle, high = (float(each) for each in np.percentile(baseline / taken, (25, 50, 75)))
    return SpeedRatio(middle, (low, high), float(np.median(taken)))
