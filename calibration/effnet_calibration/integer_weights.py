"""Weights as 8-bit integers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
        """Round to nearest; the largest weight of each output channel becomes ±limit."""
        largest = weight.flatten(1).abs().amax(1)
        # A dead channel has no largest weight, and any scale does.
        scales = torch.where(largest > 0, largest / limit, 1.0)
        scaled = (weight / _per_output(scales, weight)).round()
        return cls(scaled.clamp(-limit, limit).to(torch.int8), scales)

    def dequantized(self) -> Tensor:
        """The real values, float32."""
        return self.integers.float() * _per_output(self.scales, self.integers)


def _per_output(scales: Tensor, weight: Tensor) -> Tensor:
    return scales.view(-1, *[1] * (weight.dim() - 1))
