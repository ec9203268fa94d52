"""The grid of one tensor, and its channels' factors, chosen by what hurts the layer's output least.

Every candidate is fitted on one fold of the pictures and judged on the other, both ways: what is
weighed is the noise that the next pictures will see, not those that set the range.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from effnet_calibration.ranges import (
    ChannelRanges,
    ClippingError,
    Entropy,
    MinMax,
    Percentile,
    RangeRule,
)
from effnet_calibration.schemes import SMALLEST_SCALE

if TYPE_CHECKING:
    from torch import Tensor

    from effnet_calibration.schemes import QuantizationScheme, TensorQuantization
    from effnet_calibration.statistics import ChannelStatistics, TensorStatistics

# Where 0 may lie in a grid of 256 steps, beside the place that the range itself suggests.
ZERO_POSITIONS = (8, 16, 24, 32, 48, 64, 96, 128)

# No channel is scaled up as if it reached less than this share of the furthest-reaching one.
EQUALIZATION_FLOORS = (0.001, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
ONE_RANGE = (1.0,)

CHANNEL_RULES: tuple[RangeRule, ...] = (
    *(
        MinMax(headroom, deviations)
        for headroom in (0.8, 1.0, 1.2, 1.5, 2.0)
        for deviations in (0.0, 12.0)
    ),
    Percentile(99.99),
)
TENSOR_RULES: tuple[RangeRule, ...] = (
    *(MinMax(headroom) for headroom in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5)),
    Percentile(99.9),
    Percentile(99.99),
    Entropy(),
)


@dataclass(frozen=True)
class TensorChoice:
    """What was chosen for one tensor.

    Attributes:
        factors: multiply the channels before they are quantized, float32 (C,), median 1; all ones
            without equalization.
        grid: of the multiplied tensor.
        rule: the range rule's name.
        floor: one of `EQUALIZATION_FLOORS`.
        noise: expected mean square error of the layer's output, summed over its channels.
        snr_db: the tensor's own variance to that noise, decibels.
    """

    factors: Tensor
    grid: TensorQuantization
    rule: str
    floor: float
    noise: float
    snr_db: float


@dataclass(frozen=True)
class Reader:
    """What reads the tensor, as far as it matters to the choice.

    Attributes:
        energy: by how much each channel's squared error counts, float32 (C,).
        weight: float32 (O, C) where dividing it by the factors makes its own rounding coarser;
            None where every channel's weights have a scale of their own.
        lowest, highest: bounds that no value of the tensor can pass, where there are any; the lower
            one of each channel, (C,), or of all.
        zero_is_free: whether a constant may be subtracted from the tensor, so that a grid with its
            zero in the middle needs not waste half its steps.
        zero_in_middle: whether the grid's zero has to be in its middle, as in a symmetric scheme.
    """

    energy: Tensor
    weight: Tensor | None = None
    lowest: float | Tensor | None = None
    highest: float | None = None
    zero_is_free: bool = False
    zero_in_middle: bool = False


def choose(
    statistics: TensorStatistics, scheme: QuantizationScheme, reader: Reader, *, equalize: bool
) -> TensorChoice:
    """Search rules, zero positions and, with `equalize`, factors for the least expected noise."""
    rules = CHANNEL_RULES if equalize else TENSOR_RULES
    floors = EQUALIZATION_FLOORS if equalize else ONE_RANGE
    trial = _Trial(statistics, scheme, reader)
    return trial.finish(trial.best(rules, floors))


_Option = tuple[float, int]  # a floor and a zero position


@dataclass(frozen=True)
class _Candidate:
    rule: RangeRule
    floor: float
    zero: int
    noise: float


class _Trial:
    """The search for one tensor."""

    def __init__(
        self, statistics: TensorStatistics, scheme: QuantizationScheme, reader: Reader
    ) -> None:
        self._scheme = scheme
        self._reader = reader
        self._energy = reader.energy.double()
        self._magnitudes = None if reader.weight is None else reader.weight.abs().double()
        self._whole = statistics.whole
        first, second = statistics.folds
        if not (first.count and second.count):
            # A single picture leaves nothing to judge by but itself.
            first = second = self._whole
        self._pairs = [
            (fitted, judged, ClippingError(judged))
            for fitted, judged in ((first, second), (second, first))
        ]

    def best(self, rules: tuple[RangeRule, ...], floors: tuple[float, ...]) -> _Candidate:
        """Of every rule with every floor and zero position, the one of the least noise."""
        best: _Candidate | None = None
        for rule in rules:
            zeros = self._zeros(self._reach(rule, self._whole))
            options = list(itertools.product(floors, zeros))
            factors = [
                self._factors(self._reach(rule, fitted), options) for fitted, _, _ in self._pairs
            ]
            noises = self._tensor_noises(factors, options)
            for index in noises.argsort().tolist():
                noise = float(noises[index])
                if best is not None and noise >= best.noise:
                    break
                noise += self._weight_noise([each[index] for each in factors])
                if best is None or noise < best.noise:
                    floor, zero = options[index]
                    best = _Candidate(rule, floor, zero, noise)
        if best is None:
            raise ValueError("there are no range rules to choose from")
        return best

    def finish(self, chosen: _Candidate) -> TensorChoice:
        """Fit the chosen candidate to all pictures."""
        reach = self._reach(chosen.rule, self._whole)
        (factors,) = self._factors(reach, [(chosen.floor, chosen.zero)])
        # The factors fill the grid at scale 1; a median of 1 keeps values where they were, well
        # inside FP16.
        middle = factors.median()
        signal = float((self._whole.deviation.square() * self._energy).sum())
        zero_point = self._scheme.minimum + chosen.zero
        return TensorChoice(
            (factors / middle).float(),
            self._scheme.on_grid(float((1 / middle).float()), zero_point),
            chosen.rule.name,
            chosen.floor,
            chosen.noise,
            10 * math.log10(max(signal, 1e-300) / max(chosen.noise, 1e-300)),
        )

    def _reach(self, rule: RangeRule, statistics: ChannelStatistics) -> ChannelRanges:
        ranges = rule.ranges(statistics)
        low, high = ranges.low, ranges.high
        if self._reader.lowest is not None:
            low = (torch.zeros_like(low) - self._reader.lowest).clamp_min(0)
        if self._reader.highest is not None:
            high = high.clamp(max=self._reader.highest)
        return ChannelRanges(low, high)

    def _zeros(self, reach: ChannelRanges) -> list[int]:
        """Candidate positions of real 0 in the grid, in steps above its smallest integer."""
        in_middle = self._scheme.symmetric or self._reader.zero_in_middle
        if in_middle and not self._reader.zero_is_free:
            return [self._scheme.middle - self._scheme.minimum]
        low, high = float(reach.low.max()), float(reach.high.max())
        suggested = round(self._scheme.levels * low / (low + high)) if low + high > 0 else 0
        return sorted({suggested, *ZERO_POSITIONS})

    def _factors(self, reach: ChannelRanges, options: list[_Option]) -> Tensor:
        """What makes each channel fill the grid [−zero, levels − zero] at scale 1.

        float64 (options, C).
        """
        floors, below, above = self._grid_sides(options)
        fills = torch.maximum(_steps(reach.high, above), _steps(reach.low, below))
        widest = fills.amax(1, keepdim=True)
        usable = (widest > SMALLEST_SCALE) & torch.isfinite(widest)
        return torch.where(usable, 1 / torch.maximum(fills, floors * widest), 1.0)

    def _tensor_noises(self, factors: list[Tensor], options: list[_Option]) -> Tensor:
        """Rounding and clipping of the tensor, mean over the ways of judging: (options,)."""
        _, below, above = self._grid_sides(options)
        noise = torch.zeros(len(options), dtype=torch.float64)
        for each, (_, _, clipping) in zip(factors, self._pairs, strict=True):
            kept = ChannelRanges(below / each, above / each)
            error = each.pow(-2) / 12 + clipping.mean_square(kept)
            noise += error @ self._energy
        return noise / len(self._pairs)

    def _weight_noise(self, factors: list[Tensor]) -> float:
        """Rounding of the reader's weights, where the factors make it coarser."""
        if self._magnitudes is None:
            return 0.0
        noise = 0.0
        for each, (_, judged, _) in zip(factors, self._pairs, strict=True):
            weight_scale = (self._magnitudes / each).amax(1) / self._scheme.weight_limit
            arriving = (judged.mean_square * each.square()).sum()
            noise += float(weight_scale.square().sum() / 12 * arriving)
        return noise / len(self._pairs)

    def _grid_sides(self, options: list[_Option]) -> tuple[Tensor, Tensor, Tensor]:
        """Floors, and the steps below and above real 0, each float64 (options, 1)."""
        floors, zeros = torch.tensor(options, dtype=torch.float64).T[:, :, None]
        return floors, zeros, self._scheme.levels - zeros


def _steps(reach: Tensor, steps: Tensor) -> Tensor:
    """The step size that spans `reach`, (C,), with so many steps, (options, 1)."""
    # Without a step on that side, nothing but an empty reach fits.
    return torch.where(reach > 0, reach / steps, 0.0)
