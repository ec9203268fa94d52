"""Rules that say how far a channel's values reach, and the error that a grid then makes.

No rule is best for every tensor; `selection` judges their answers on pictures they have not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

import torch

from effnet_calibration.statistics import bin_centres

if TYPE_CHECKING:
    from torch import Tensor

    from effnet_calibration.statistics import ChannelStatistics

NEGATIVE, POSITIVE = 0, 1

# SiLU is never below this: min x·sigmoid(x), at x ≈ −1.2785.
SILU_MINIMUM = -0.2784645
SILU_FLOOR = -5.0
"""Below it SiLU is as good as 0: it is −0.03 there."""
ACTIVATION_BOUNDS = {"silu": (SILU_MINIMUM, None), "relu": (0.0, None), "relu6": (0.0, 6.0)}

ENTROPY_LEVELS = 128


@dataclass(frozen=True)
class ChannelRanges:
    """How far each channel reaches: `low` below zero and `high` above, both ≥ 0, float64 (C,)."""

    low: Tensor
    high: Tensor


class RangeRule(Protocol):
    """Reads a range off statistics."""

    @property
    def name(self) -> str:
        """What a table calls the rule."""

    def ranges(self, statistics: ChannelStatistics) -> ChannelRanges:
        """The range of every channel."""


@dataclass(frozen=True)
class MinMax:
    """The extremes times `headroom`, but at least `deviations` standard deviations.

    Deep features are sparse: a channel's maximum over 100 pictures is often a third below its
    maximum over the next 100, and a peak cut off costs more than a coarser step.
    """

    headroom: float = 1.0
    deviations: float = 0.0

    @property
    def name(self) -> str:
        """What the table calls it: min-max, with its factors where it has any."""
        least = f", at least {self.deviations:g} deviations" if self.deviations else ""
        return "min-max" + (f" × {self.headroom:g}" if self.headroom != 1 else "") + least

    def ranges(self, statistics: ChannelStatistics) -> ChannelRanges:
        """Give `headroom` times each channel's extremes, or `deviations` deviations if more."""
        least = self.deviations * statistics.deviation
        high = torch.maximum(self.headroom * statistics.maximum, least)
        low = torch.maximum(-self.headroom * statistics.minimum, least * (statistics.minimum < 0))
        return ChannelRanges(low.clamp_min(0), high.clamp_min(0))


@dataclass(frozen=True)
class Percentile:
    """The magnitudes that `percent` of the channel's values do not exceed, on each side."""

    percent: float

    @property
    def name(self) -> str:
        """What the table calls it: percentile 99.99, for instance."""
        return f"percentile {self.percent:g}"

    def ranges(self, statistics: ChannelStatistics) -> ChannelRanges:
        """Leave `1 − percent / 100` of the values of a channel outside on either side."""
        beyond = (1 - self.percent / 100) * statistics.histogram_count
        low, high = (self._reach(statistics, side, beyond) for side in (NEGATIVE, POSITIVE))
        return ChannelRanges(
            torch.minimum(low, (-statistics.minimum).clamp_min(0)),
            torch.minimum(high, statistics.maximum.clamp_min(0)),
        )

    def _reach(self, statistics: ChannelStatistics, side: int, beyond: float) -> Tensor:
        tail = statistics.histogram[side].flip(1).cumsum(1).flip(1)
        # Bins that still have more than `beyond` values in them or above.
        inside = (tail > beyond).sum(1)
        edges = torch.cat([torch.zeros(1), bin_centres()]).double()
        reach: Tensor = edges[inside]
        return reach


@dataclass(frozen=True)
class Entropy:
    """One range for all channels: that whose quantized distribution loses the least information.

    The clipping threshold of the magnitudes that minimizes KL(P ‖ Q), P the distribution with all
    beyond the threshold moved onto it, Q what `ENTROPY_LEVELS` equal steps make of it (Migacz
    2017, "8-bit inference with TensorRT").
    """

    name: str = "entropy"

    def ranges(self, statistics: ChannelStatistics) -> ChannelRanges:
        """Clip where the histogram and its rounded form have the least KL divergence."""
        counts = statistics.histogram.sum((0, 1)).double()
        largest = torch.maximum(statistics.maximum.max(), -statistics.minimum.min()).clamp_min(0)
        centres = bin_centres().double().tolist()
        candidates = [i for i, c in enumerate(centres) if largest / 64 <= c < largest]
        losses = [_information_loss(counts, last) for last in candidates]
        best = candidates[losses.index(min(losses))] if losses else None
        reach = float(largest) if best is None else centres[best]
        whole = torch.full_like(statistics.maximum, reach)
        return ChannelRanges(
            torch.minimum(whole, (-statistics.minimum.min()).clamp_min(0).expand_as(whole)),
            torch.minimum(whole, statistics.maximum.max().clamp_min(0).expand_as(whole)),
        )


def _information_loss(counts: Tensor, last: int) -> float:
    """KL divergence in nats of a histogram clipped at the bin `last` from its quantized form."""
    reference = counts[: last + 1].clone()
    if not bool(reference.sum() > 0):
        return float("inf")
    step = _steps_up_to(last)
    occupied = (reference > 0).double()
    mass = torch.zeros(ENTROPY_LEVELS, dtype=torch.float64).index_add_(0, step, reference)
    cells = torch.zeros(ENTROPY_LEVELS, dtype=torch.float64).index_add_(0, step, occupied)
    quantized = (mass / cells.clamp_min(1))[step] * occupied
    reference[-1] += counts[last + 1 :].sum()
    p, q = reference / reference.sum(), quantized / quantized.sum()
    kept = p > 0
    return float((p[kept] * (p[kept] / q[kept].clamp_min(1e-12)).log()).sum())


@cache
def _steps_up_to(last: int) -> Tensor:
    """The step of each bin where the bin `last` is the threshold, int64 (last + 1,)."""
    centres = bin_centres().double()
    shares = centres[: last + 1] / float(centres[last])
    return (shares * ENTROPY_LEVELS).long().clamp_max(ENTROPY_LEVELS - 1)


class ClippingError:
    """E[(|x| − t)₊²] of every channel, on either side, for any thresholds; from the histogram."""

    def __init__(self, statistics: ChannelStatistics) -> None:
        self._centres = bin_centres().double()
        share = statistics.histogram.double() / max(statistics.histogram_count, 1)
        none = torch.zeros(*share.shape[:2], 1, dtype=torch.float64)
        # Moments of all bins from each one upwards, and of none at all behind the last, channel
        # after channel, as `index_select` reads them fastest.
        self._moments = [
            torch.cat([(share * self._centres**power).flip(2).cumsum(2).flip(2), none], 2).flatten(
                1
            )
            for power in range(3)
        ]

    def mean_square(self, ranges: ChannelRanges) -> Tensor:
        """Σ over both sides, for thresholds float64 (..., C)."""
        return self._side(NEGATIVE, ranges.low) + self._side(POSITIVE, ranges.high)

    def _side(self, side: int, threshold: Tensor) -> Tensor:
        first = torch.searchsorted(self._centres, threshold.contiguous())
        first += torch.arange(threshold.shape[-1]) * (len(self._centres) + 1)
        weight, mean, square = (
            moment[side].index_select(0, first.flatten()).view_as(threshold)
            for moment in self._moments
        )
        return (square - 2 * threshold * mean + threshold.square() * weight).clamp_min(0)
