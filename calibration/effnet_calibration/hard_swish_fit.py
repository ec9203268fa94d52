"""The least squares fit of `FittedActivation` to pairs of values, for all channels at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from effnet_calibration.fitted_activation import HardSwishFit

BINS = 256
SORTED_AT_ONCE = 64
"""Channels: sorting takes five times the memory of the samples."""

SMALLEST_FACTOR = 1e-3
LARGEST_SLOPE = 4.0
ITERATIONS = 30

# Where a start is looked for; a and d follow from b and c.
INNER_FACTORS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0)
INNER_SHIFTS = (-1.5, -1.0, -0.6, -0.3, 0.0, 0.3, 0.6, 1.0, 1.5)

# A channel that says next to nothing on the pictures is fitted to SiLU itself.
_PRIOR = torch.linspace(-6, 6, 49, dtype=torch.float64)
_PRIOR_WEIGHT = 1e-6


class Pairs(NamedTuple):
    """What goes into an activation and what should come out: values, targets, weights (C, K)."""

    values: Tensor
    targets: Tensor
    weights: Tensor

    @classmethod
    def binned(cls, values: Tensor, targets: Tensor) -> Pairs:
        """Of samples, float32 (C, S): means over `BINS` ranges of values with as many samples."""
        few = zip(*(torch.split(each, SORTED_AT_ONCE) for each in (values, targets)), strict=True)
        means = [torch.cat(each) for each in zip(*(_means(*both) for both in few), strict=True)]
        prior = _PRIOR.expand(len(values), -1)
        bins = means[0].shape[1]
        weights = torch.full_like(means[0], 1 / bins)
        return cls(
            torch.cat([means[0], prior], 1),
            torch.cat([means[1], functional.silu(prior)], 1),
            torch.cat([weights, torch.full_like(prior, _PRIOR_WEIGHT / len(_PRIOR))], 1),
        )


def _means(values: Tensor, targets: Tensor) -> list[Tensor]:
    width = max(1, values.shape[1] // BINS)
    kept = values.shape[1] // width * width
    order = values.argsort(1)[:, :kept]
    return [
        each.gather(1, order).double().view(len(each), -1, width).mean(2)
        for each in (values, targets)
    ]


class Fitted(NamedTuple):
    """The four numbers of every channel, and the slopes, float64 (C,), if it is bent."""

    numbers: HardSwishFit
    slopes: Tensor


def fit(pairs: Pairs, *, bent: bool = False) -> Fitted:
    """The numbers of every channel with the least weighted square error, float64.

    Levenberg-Marquardt from the best of a grid of starts; unless it is bent, every slope is 1.
    """
    best = _start(pairs, bent=bent)
    free = best.shape[1] if bent else best.shape[1] - 1
    loss = _loss(pairs, best)
    damping = torch.full_like(loss, 1e-3)
    for _ in range(ITERATIONS):
        tried = best.clone()
        tried[:, :free] += _step(pairs, best, damping, free)
        tried[:, 0].clamp_(min=SMALLEST_FACTOR)
        tried[:, 1].clamp_(min(INNER_FACTORS) / 4, max(INNER_FACTORS) * 4)
        tried[:, 4].clamp_(0, LARGEST_SLOPE)
        found = _loss(pairs, tried)
        better = found < loss
        best = torch.where(better[:, None], tried, best)
        loss = torch.where(better, found, loss)
        damping = torch.where(better, damping / 4, damping * 4).clamp(1e-9, 1e6)
    *numbers, slopes = best.T
    return Fitted(HardSwishFit(*numbers), slopes)


def _start(pairs: Pairs, *, bent: bool) -> Tensor:
    channels = len(pairs.values)
    best = torch.zeros(channels, 5, dtype=torch.float64)
    least = torch.full((channels,), torch.inf, dtype=torch.float64)
    for b in INNER_FACTORS:
        for c in INNER_SHIFTS:
            tried = _with_outer(pairs, b, c, bent=bent)
            loss = _loss(pairs, tried)
            better = loss < least
            best = torch.where(better[:, None], tried, best)
            least = torch.where(better, loss, least)
    return best


def _with_outer(pairs: Pairs, b: float, c: float, *, bent: bool) -> Tensor:
    """The a, d and, if it is bent, slope that fit best with these, (C, 5)."""
    hard = functional.hardswish(pairs.values * b + c)
    ones = torch.ones_like(hard)
    parts = [hard.clamp_min(0), hard.clamp_max(0)] if bent else [hard]
    linear = torch.stack([*parts, ones], 1)
    weighted = linear * pairs.weights[:, None]
    normal = weighted @ linear.mT
    # A part that no value reaches has nothing to tell.
    ridge = 1e-9 * normal.diagonal(dim1=1, dim2=2) + 1e-14
    solved = torch.linalg.solve(
        normal + torch.diag_embed(ridge), weighted @ pairs.targets[:, :, None]
    ).squeeze(2)
    a, d = solved[:, 0].clamp_min(SMALLEST_FACTOR), solved[:, -1]
    flat = torch.ones_like(a)
    slope = (solved[:, 1] / a).clamp(0, LARGEST_SLOPE) if bent else flat
    return torch.stack([a, b * flat, c * flat, d, slope], 1)


def _loss(pairs: Pairs, numbers: Tensor) -> Tensor:
    a, b, c, d, below = numbers.T[:, :, None]
    hard = functional.hardswish(b * pairs.values + c)
    errors = a * hard.where(hard > 0, below * hard) + d - pairs.targets
    loss: Tensor = (pairs.weights * errors.square()).sum(1)
    return loss


def _step(pairs: Pairs, numbers: Tensor, damping: Tensor, free: int) -> Tensor:
    a, b, c, d, below = numbers.T[:, :, None]
    inner = b * pairs.values + c
    hard = functional.hardswish(inner)
    factor = torch.ones_like(hard).where(hard > 0, below)
    bent = factor * hard
    slope = a * factor * ((2 * inner + 3) / 6).where(inner < 3, 1.0).where(inner > -3, 0.0)
    by_number = [bent, slope * pairs.values, slope, torch.ones_like(hard), a * hard.clamp_max(0)]
    jacobian = torch.stack(by_number[:free], 1)
    weighted = jacobian * pairs.weights[:, None]
    errors = a * bent + d - pairs.targets
    normal: Tensor = weighted @ jacobian.mT
    diagonal = normal.diagonal(dim1=1, dim2=2)
    damped = normal + torch.diag_embed(damping[:, None] * diagonal + 1e-12)
    step: Tensor = torch.linalg.solve(damped, -(weighted @ errors[:, :, None]))
    return step.squeeze(2)
