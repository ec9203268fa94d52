"""Which candidates are worth having: no other one is both faster and loses less."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity.report.charts.frontier import Point, on_frontier
from effnet_edge.parity.report.loss import Loss

if TYPE_CHECKING:
    from collections.abc import Sequence

_A_QUARTER = 75.0


@dataclass(frozen=True)
class Measured:
    """What one candidate loses and takes.

    Attributes:
        loss: more is worse; NaN where its answers are no numbers.
        seconds: of one call in each round, of which all candidates have the same number.
    """

    name: str
    loss: float
    seconds: tuple[float, ...]

    @cached_property
    def median(self) -> float:
        """Seconds of a call."""
        return float(np.median(self.seconds))

    @property
    def least(self) -> float:
        """Seconds of the shortest call: what the machine takes when nothing else does."""
        return min(self.seconds)

    @cached_property
    def middle_half(self) -> tuple[float, float]:
        """The quartiles of the seconds."""
        low, high = np.percentile(self.seconds, (25, 75))
        return float(low), float(high)

    def is_as_fast_as(self, other: Measured) -> bool:
        """Whether it took no longer than the other in a quarter of the rounds or more."""
        ratios = np.divide(other.seconds, self.seconds)
        return bool(np.percentile(ratios, _A_QUARTER) >= 1)


def frontier(measured: Sequence[Measured]) -> list[Measured]:
    """Those that no other one beats, the fastest first; never one whose loss is no number.

    Of equal ones the first.
    """
    by_name = {each.name: each for each in measured if math.isfinite(each.loss)}
    points = [
        Point(each.name, each.name, each.median, Loss(each.loss, None, None))
        for each in by_name.values()
    ]
    return [by_name[point.name] for point in on_frontier(points)]


def fastest(measured: Sequence[Measured]) -> Measured | None:
    """The fastest of the frontier, or what loses less there and is as fast but for chance.

    None where no loss is a number.
    """
    best = frontier(measured)
    as_fast = [each for each in best if each.is_as_fast_as(best[0])]
    return as_fast[-1] if as_fast else None
