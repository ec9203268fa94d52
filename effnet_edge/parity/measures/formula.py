"""A measure as a formula that adds up over batches, so that no picture has to be kept."""

from __future__ import annotations

from dataclasses import dataclass
from operator import add
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

Partial: TypeAlias = tuple[float, ...]
"""What one batch contributes to a measure: a few sums, or a few maxima."""


@dataclass(frozen=True)
class Formula:
    """How far a candidate's array is from a reference's, at once or batch by batch.

    Attributes:
        partial: the contribution of one batch: reference and candidate, of one shape.
        join: makes one contribution of two batches' (`total` or `largest`).
        value: the measure, from the joined contributions.
    """

    partial: Callable[[ArrayLike, ArrayLike], Partial]
    join: Callable[[Partial, Partial], Partial]
    value: Callable[..., float]

    def __call__(self, reference: ArrayLike, candidate: ArrayLike) -> float:
        """Measure two whole arrays; raises ValueError where their shapes do not fit."""
        return self.value(*self.partial(reference, candidate))

    def joined(self, before: Partial | None, batch: Partial) -> Partial:
        """Add a batch's contribution to that of those before it, None where it is the first."""
        return batch if before is None else self.join(before, batch)


Z95 = NormalDist().inv_cdf(0.975)
"""Standard deviations to either side of a mean that the 95 % interval reaches."""


@dataclass(frozen=True)
class Loss:
    """What a candidate loses against the truth, and the 95 % interval of the loss."""

    value: float
    interval: tuple[float, float]


def total(one: Partial, other: Partial) -> Partial:
    """Add up; NaN where one of the two is, or where infinities cancel."""
    return tuple(map(add, one, other))


def largest(one: Partial, other: Partial) -> Partial:
    """Choose the larger; NaN, unlike with `max`, where one of the two is."""
    return tuple(np.maximum(one, other).tolist())


def mean_of_images(per_image: Callable[[ArrayLike, ArrayLike], np.ndarray]) -> Formula:
    """Average what `per_image` gives for each picture: two (N, classes) → (N,)."""

    def partial(reference: ArrayLike, candidate: ArrayLike) -> Partial:
        values = per_image(reference, candidate)
        return float(np.sum(values)), float(len(values))

    return Formula(partial, total, lambda summed, images: summed / images)
