"""What the steps' changes make of each layer's output, as they are made for other purposes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

from effnet_calibration.equalized_activation import EQUALIZED
from effnet_calibration.fitted_activation import HardSwishFit
from effnet_calibration.quantization import ACTIVATIONS, STREAM
from effnet_calibration.rounded_hard_swish import HARD_SWISHES, RoundedHardSwish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet_calibration.path import NetworkPath
    from effnet_calibration.quantization import Quantization


class OutputScale(NamedTuple):
    """The network itself gives x where the changed one gives factors · x + shifts: float64 (C,)."""

    factors: Tensor
    shifts: Tensor

    def then(self, factors: Tensor, shifts: Tensor) -> OutputScale:
        """The same, scaled once more."""
        return OutputScale(self.factors * factors, self.shifts * factors + shifts)


AS_IT_IS = OutputScale(torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))


def output_scales(quantization: Quantization, path: NetworkPath) -> dict[str, OutputScale]:
    """Of every layer on the main path whose output is scaled, before its activation."""
    scales: dict[str, OutputScale] = {}
    for name, factors, shifts in _scalings(quantization, path):
        scales[name] = scales.get(name, AS_IT_IS).then(factors, shifts)
    return scales


def _scalings(
    quantization: Quantization, path: NetworkPath
) -> Iterator[tuple[str, Tensor, Tensor]]:
    for name, numbers in quantization.changes(ACTIVATIONS).items():
        fit = HardSwishFit.of(numbers)
        yield name, fit.b, fit.c
    for name, numbers in quantization.changes(HARD_SWISHES).items():
        rounded = RoundedHardSwish.of(numbers)
        yield name, rounded.b, rounded.c
    for name, factors in quantization.changes(EQUALIZED).items():
        yield name, 1 / torch.tensor(factors, dtype=torch.float64), AS_IT_IS.shifts
    for name, factors in quantization.changes(STREAM).items():
        for layer in path.stream_projections(cast("int", path[name].adds_to)):
            yield layer.name, torch.tensor(factors, dtype=torch.float64), AS_IT_IS.shifts
