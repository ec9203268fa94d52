"""A hard-swish that stands in for a SiLU, four numbers a channel.

SiLU(x) ≈ a · HardSwish(b · x + c) + d, with HardSwish(y) = y · min(max(y + 3, 0), 6) / 6 (Howard et
al. 2019, "Searching for MobileNetV3", section 5.2). Engines compute it by a few multiplications
where a SiLU takes an exponential. b and c go into the convolution before, a and d stand behind it
and fuse into its epilogue. d is added before anything pads, so that a border stays zero.

A fifth number, the slope, may bend it at 0: what the hard-swish has below is multiplied by it (a
PReLU, which fuses, too).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet_calibration.errors import CalibrationError

if TYPE_CHECKING:
    from effnet_calibration.quantization import Numbers

LOWEST_HARD_SWISH = -0.375
"""HardSwish(−1.5): it is nowhere lower."""


_WORDS = {3: "three", 4: "four"}


def numbers_of_channels(numbers: Numbers, count: int, whose: str) -> Tensor:
    """Read `count` numbers a channel, the first of all channels first: float64 (count, C).

    Raises:
        CalibrationError: they are not so many, not finite, or one of the first two, which are
            factors, is not above 0.
    """
    values = torch.as_tensor(numbers, dtype=torch.float64)
    if values.dim() != 1 or len(values) % count:
        raise CalibrationError(f"{whose} has not {_WORDS[count]} numbers a channel")
    read = values.view(count, -1)
    if not bool(torch.isfinite(read).all() and (read[:2] > 0).all()):
        raise CalibrationError(f"{whose} has a factor that is not above 0")
    return read


def slopes_of_channels(numbers: Numbers) -> Tensor:
    """Read one slope a channel, float64 (C,).

    Raises:
        CalibrationError: one is below 0 or not finite.
    """
    slopes = torch.as_tensor(numbers, dtype=torch.float64)
    if slopes.dim() != 1 or not bool((torch.isfinite(slopes) & (slopes >= 0)).all()):
        raise CalibrationError("a fitted activation has a slope that is no number from 0 on")
    return slopes


@dataclass(frozen=True)
class HardSwishFit:
    """The four numbers of every channel, each (C,): a > 0, b > 0, c and d of the formula."""

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor

    @classmethod
    def of(cls, numbers: Numbers) -> HardSwishFit:
        """Read what a table holds: all channels' a, then all b, c and d.

        Raises:
            CalibrationError: they are not four a channel, not finite, or a factor is not above 0.
        """
        return cls(*numbers_of_channels(numbers, 4, "a fitted activation"))

    @property
    def numbers(self) -> Tensor:
        """As a table holds it, (4 · C,)."""
        return torch.cat([self.a, self.b, self.c, self.d])

    def lowest(self, slopes: Tensor | float = 1.0) -> Tensor:
        """What no value of a channel is below, (C,)."""
        return self.a * LOWEST_HARD_SWISH * slopes + self.d


class FittedActivation(nn.Module):
    """a · HardSwish(x) + d, and what follows it in the same epilogue: float32 (N, C, H, W)."""

    factors: Tensor
    shifts: Tensor
    slopes: Tensor | None
    folded = False

    def __init__(self, fit: HardSwishFit) -> None:
        super().__init__()
        self.register_buffer("factors", fit.a.float().view(1, -1, 1, 1))
        self.register_buffer("shifts", fit.d.float().view(1, -1, 1, 1))
        self.register_buffer("slopes", None)

    def bend(self, slopes: Tensor) -> None:
        """Multiply what every channel's hard-swish has below 0 by its slope, (C,), from now on."""
        self.slopes = slopes.float()

    def scale(self, factors: Tensor) -> None:
        """Multiply every channel by its factor, (C,), from now on."""
        factors = factors.view_as(self.factors)
        self.factors, self.shifts = self.factors * factors, self.shifts * factors
        self.folded = False

    def take_factors(self) -> Tensor:
        """Leave the factors, (C,), to the layers behind it: what it gives is divided by them."""
        taken = self.factors
        self.shifts, self.factors, self.folded = self.shifts / taken, torch.ones_like(taken), True
        return taken.flatten()

    def subtract(self, centre: float) -> None:
        """Subtract a constant from all channels from now on."""
        self.shifts = self.shifts - centre

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) → the same shape."""
        hard = functional.hardswish(x)
        if self.slopes is not None:
            hard = functional.prelu(hard, self.slopes)
        return (hard if self.folded else hard * self.factors) + self.shifts
