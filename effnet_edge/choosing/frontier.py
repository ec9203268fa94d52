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

_ONE_SIDED_95 = 1.645


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
        """Whether chance may be all that the other is faster by: a sign test, one-sided at 95 %.

        The other is faster in half of the rounds and more than chance adds to that (by the normal
        approximation; ties count half), or, where the rounds are few, in all of them.
        """
        own, others = np.asarray(self.seconds), np.asarray(other.seconds)
        rounds = len(own)
        lost = float((others < own).sum()) + float((others == own).sum()) / 2
        return lost <= min(rounds / 2 + _ONE_SIDED_95 * math.sqrt(rounds) / 2, rounds - 0.5)


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
