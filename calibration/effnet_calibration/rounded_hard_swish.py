"""Hard-swishes that take the place of equalized SiLUs, for engines that round every output.

    SiLU(x) ≈ a · HardSwish(y),  y = b · x + c,  HardSwish(y) = y · min(max(y + 3, 0), 6) / 6

An equalized SiLU is a product with s, a sigmoid and a product (see `equalized_activation`); this is
a sum, whose grid from 0 to 6 cuts off what lies outside, and a product. b equalizes: below −3
nothing is left of y, so that every channel can fill the grid from −3 up. b and c go into the
convolution before, a / 6 into the weights that read it. There is nothing to add behind it, as
`fitted_activation` has it: the border that a depthwise convolution pads with stands for 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet_calibration.equalized_activation import let_readers_multiply
from effnet_calibration.errors import CalibrationError
from effnet_calibration.fitted_activation import LOWEST_HARD_SWISH, numbers_of_channels
from effnet_calibration.path import frozen
from effnet_calibration.ranges import SILU_FLOOR
from effnet_calibration.statistics import bin_centres

if TYPE_CHECKING:
    from effnet_calibration.path import Layer, NetworkPath
    from effnet_calibration.quantization import Numbers
    from effnet_calibration.schemes import QuantizationScheme, TensorQuantization
    from effnet_calibration.statistics import ChannelStatistics
    from effnet_edge.model.network import EfficientNet

HARD_SWISHES = "hard_swishes"

LOWEST = -3.0
"""Of y: what is below gives 0 as it does."""
REACHES = (8.0, 12.0, 16.0, 24.0)
"""Of y, that are tried: how far above 0 its grid goes."""

SMALLEST_FACTOR = 1e-4
_FACTORS = torch.logspace(math.log10(0.03), math.log10(4), 14, dtype=torch.float64).tolist()
_SHIFTS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
_FINER = ((0.2, 0.25), (0.1, 0.12), (0.1, 0.12), (0.04, 0.05), (0.04, 0.05), (0.02, 0.02))
"""Steps of b, as a share of it, and of c, around the best so far."""

_ALL_BUT_ZERO = 2.0**-6
_HEADROOM = 1.1
# A channel that says next to nothing on the pictures is fitted to SiLU itself.
_PRIOR = torch.linspace(-5, 5, 41, dtype=torch.float64)
_PRIOR_WEIGHT = 1e-5


class HardSwish6(nn.Module):
    """y → 6 · HardSwish(y): float32 (N, C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.ReLU6()

    def forward(self, y: Tensor) -> Tensor:
        """float32 (N, C, H, W) → the same shape."""
        gate: Tensor = self.gate(y + -LOWEST)
        return y * gate


@dataclass(frozen=True)
class RoundedHardSwish:
    """The numbers of every channel, each float64 (C,): a > 0, b > 0 and c of the formula."""

    a: Tensor
    b: Tensor
    c: Tensor

    @classmethod
    def of(cls, numbers: Numbers) -> RoundedHardSwish:
        """Read what a table holds: all channels' a, then all b and all c.

        Raises:
            CalibrationError: they are not three a channel, not finite, or a factor is not above 0.
        """
        return cls(*numbers_of_channels(numbers, 3, "a hard-swish"))

    @property
    def numbers(self) -> Tensor:
        """As a table holds it, (3 · C,)."""
        return torch.cat([self.a, self.b, self.c])

    @property
    def behind(self) -> Tensor:
        """What is left to multiply by behind `HardSwish6`, (C,)."""
        return self.a / 6


def replace_by_hard_swish(
    network: EfficientNet, path: NetworkPath, layer: Layer, numbers: Numbers
) -> None:
    """Put `HardSwish6` in the place of a layer's SiLU, and its factors into the weights around."""
    fit = RoundedHardSwish.of(numbers)
    module = layer.module(network)
    if layer.activation is None or module.bias is None or len(fit.b) != len(module.weight):
        raise CalibrationError(
            f"the calibration table's hard-swish of {layer.name} does not fit the network"
        )
    module.weight = frozen(module.weight.double() * fit.b.view(-1, 1, 1, 1))
    module.bias = frozen(module.bias.double() * fit.b + fit.c)
    network.set_submodule(layer.activation, HardSwish6())
    let_readers_multiply(network, path, layer, fit.behind)


class FittedSite(NamedTuple):
    """What was found for one layer.

    `grid` is that of y. `snr_db` is SiLU's variance to the errors of fit and of roundings, all
    weighed by the energy of their channel.
    """

    fit: RoundedHardSwish
    grid: TensorQuantization
    snr_db: float


def fit_rounded(
    statistics: ChannelStatistics, scheme: QuantizationScheme, energy: Tensor
) -> FittedSite:
    """The numbers of all channels with the least error, of the reach that weighs least.

    Args:
        statistics: of what goes into the SiLU, what is far below 0 cut off.
        energy: by how much each channel's squared error counts, (C,).
    """
    values = _Values.of(statistics)
    energy = energy.double()
    searches = [_Search(values, reach, scheme.levels) for reach in REACHES]
    for each in searches:
        each.look_everywhere()
    best = min(searches, key=lambda each: float((each.error * energy).sum()))
    best.look_closer()
    scale = (best.reach - LOWEST) / scheme.levels
    grid = scheme.on_grid(scale, scheme.minimum + math.ceil(-LOWEST / scale))
    signal, noise = float((values.variance * energy).sum()), float((best.error * energy).sum())
    snr_db = 10 * math.log10(max(signal, 1e-300) / max(noise, 1e-300))
    return FittedSite(best.fit, grid, snr_db)


class _Values(NamedTuple):
    """What goes into a SiLU and what comes out, and how often, float64 (C, K); weights add to 1."""

    values: Tensor
    targets: Tensor
    weights: Tensor

    @classmethod
    def of(cls, statistics: ChannelStatistics) -> _Values:
        """Read a histogram; one more value reaches farther than all that were seen."""
        centres, counts = bin_centres().double(), statistics.histogram.double()
        used = (centres > _ALL_BUT_ZERO) & (counts.sum((0, 1)) > 0)
        centres, counts = centres[used], counts[:, :, used]
        count = max(statistics.histogram_count, 1)
        seen = torch.cat([*counts, (count - counts.sum((0, 2))).clamp_min(0)[:, None]], 1) / count
        farther = _HEADROOM * statistics.maximum.clamp_min(0)[:, None]
        channels = len(seen)
        values = torch.cat([-centres, centres, torch.zeros(1), _PRIOR]).expand(channels, -1)
        values = torch.cat([values, farther], 1)
        prior = torch.full((channels, len(_PRIOR)), _PRIOR_WEIGHT / len(_PRIOR))
        weights = torch.cat([seen, prior, torch.full_like(farther, 1 / count)], 1)
        targets = functional.silu(values).where(values > SILU_FLOOR, 0.0)
        return cls(values, targets, weights / weights.sum(1, keepdim=True))

    @property
    def variance(self) -> Tensor:
        """Of what comes out, (C,)."""
        mean = (self.weights * self.targets).sum(1, keepdim=True)
        return (self.weights * (self.targets - mean).square()).sum(1)


class _Search:
    """For the numbers of all channels, with y's grid of a given reach."""

    def __init__(self, values: _Values, reach: float, levels: int) -> None:
        self.reach = reach
        self._values = values
        self._levels = levels
        channels = len(values.values)
        self.error = torch.full((channels,), torch.inf, dtype=torch.float64)
        ones = torch.ones(channels, dtype=torch.float64)
        self.fit = RoundedHardSwish(ones, ones, ones)

    def look_everywhere(self) -> None:
        """Try the same b and c in all channels."""
        for b in _FACTORS:
            for c in _SHIFTS:
                self._try(torch.full_like(self.error, b), torch.full_like(self.error, c))

    def look_closer(self) -> None:
        """Try some around the best of each channel."""
        for share, step in _FINER:
            around = self.fit
            for up in (-1, 0, 1):
                for right in (-1, 0, 1):
                    self._try(around.b * math.exp(up * share), around.c + right * step)

    def _try(self, b: Tensor, c: Tensor) -> None:
        values, targets, weights = self._values
        y = (values * b[:, None] + c[:, None]).clamp(LOWEST, self.reach)
        hard = functional.hardswish(y)
        rounding = (weights * self._roundings(y)).sum(1)
        both, square = (weights * hard * targets).sum(1), (weights * hard.square()).sum(1)
        a = (both / (square + rounding)).clamp_min(SMALLEST_FACTOR)
        misfit = (weights * (a[:, None] * hard - targets).square()).sum(1)
        error = misfit + a.square() * rounding
        better = error < self.error
        self.error = torch.where(better, error, self.error)
        best = self.fit
        self.fit = RoundedHardSwish(
            torch.where(better, a, best.a),
            torch.where(better, b, best.b),
            torch.where(better, c, best.c),
        )

    def _roundings(self, y: Tensor) -> Tensor:
        """What the roundings of y, of the gate and of the product add to HardSwish(y), squared."""
        slope = ((2 * y + 3) / 6).where(y < 3, 1.0).where(y > LOWEST, 0.0)
        own = (self.reach - LOWEST) / self._levels * slope
        gate = y / self._levels
        product = (self.reach - LOWEST_HARD_SWISH) / self._levels
        return (own.square() + gate.square() + product**2) / 12
