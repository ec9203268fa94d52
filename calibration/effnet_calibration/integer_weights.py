"""Weights as 8-bit integers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

NEIGHBOURS = 0.9
"""How alike neighbouring pixels of a feature map are taken to be: their correlation. A kernel's
errors of rounding then count most where they do not cancel out."""
PIXEL_NOISE = 0.01
"""What of a pixel's variance is its own, so that no correlation is trusted to the last."""


@dataclass(frozen=True)
class QuantizedWeight:
    """Weights as integers: real = integers · scales, a scale an output channel, zero point 0.

    Attributes:
        integers: int8, shaped as the layer's weight, in [−limit, limit].
        scales: float32 (output channels,), above 0.
    """

    integers: Tensor
    scales: Tensor

    @classmethod
    def of(cls, weight: Tensor, limit: int) -> QuantizedWeight:
        """Round so that the largest weight of each output channel becomes ±limit.

        Single weights are rounded to nearest; those of a spatial kernel so that neighbours make up
        for each other's errors, see `_rounded_kernels`.
        """
        largest = weight.flatten(1).abs().amax(1)
        # A dead channel has no largest weight, and any scale does.
        scales = torch.where(largest > 0, largest / limit, 1.0)
        scaled = weight / _per_output(scales, weight)
        if weight.dim() == 4 and weight[0, 0].numel() > 1:
            return cls(_rounded_kernels(scaled, limit), scales)
        return cls(scaled.round().clamp(-limit, limit).to(torch.int8), scales)

    def dequantized(self) -> Tensor:
        """The real values, float32."""
        return self.integers.float() * _per_output(self.scales, self.integers)


def _per_output(scales: Tensor, weight: Tensor) -> Tensor:
    return scales.view(-1, *[1] * (weight.dim() - 1))


def _rounded_kernels(kernels: Tensor, limit: int) -> Tensor:
    """Integers for kernels (O, I, height, width) whose weights are in steps, int8.

    Each weight's error is handed on to those of its kernel that are not rounded yet, by the shares
    that leave the least error of the output (optimal brain surgeon: Hassibi & Stork 1993; in this
    order and form Frantar et al. 2022, "GPTQ"). No pictures are needed, as what a kernel reads is
    taken to be alike everywhere: see `NEIGHBOURS`.
    """
    weights = kernels.flatten(2).double()
    shares = _shares(*kernels.shape[2:])
    rounded = torch.empty_like(weights)
    for position in range(weights.shape[2]):
        rounded[..., position] = weights[..., position].round().clamp(-limit, limit)
        error = weights[..., position] - rounded[..., position]
        weights[..., position:] += error[..., None] * shares[position, position:]
    return rounded.view(kernels.shape).to(torch.int8)


@cache
def _shares(height: int, width: int) -> Tensor:
    """What each later position takes over of a position's error, float64 (K, K), row by row."""
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width)).double()
    distances = torch.cdist(places, places)
    correlation = NEIGHBOURS**distances + PIXEL_NOISE * torch.eye(len(places))
    factor: Tensor = torch.linalg.cholesky(torch.linalg.inv(correlation), upper=True)
    return -factor / factor.diagonal()[:, None]
