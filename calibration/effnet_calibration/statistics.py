"""What is known of every quantized tensor after one pass over the pictures, in bounded memory.

Exact: each channel's minimum, maximum, and sums. Approximate: the histogram, which has eight
bins an octave (an error of at most 6 % in a value), counts what is closer to zero than 2⁻¹² as
zero, and on maps wider than `HISTOGRAM_SIDE` counts a regular grid of pixels only.

The statistics come in two folds, of the even and of the odd pictures. A range that was chosen on
the one is judged on the other: what a range is for is the next picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from effnet_calibration.errors import CalibrationError
from effnet_calibration.path import NetworkPath

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from effnet_edge.model.network import EfficientNet

FOLDS = 2
HISTOGRAM_SIDE = 28

_OCTAVES = (-12, 12)
_BINS_AN_OCTAVE = 8
_BINS = (_OCTAVES[1] - _OCTAVES[0]) * _BINS_AN_OCTAVE


def bin_centres() -> Tensor:
    """The value in the middle of each bin of magnitudes, float32 (bins,), ascending."""
    octave = torch.arange(_OCTAVES[0], _OCTAVES[1]).repeat_interleave(_BINS_AN_OCTAVE)
    mantissa = 1 + (torch.arange(_BINS_AN_OCTAVE) + 0.5) / _BINS_AN_OCTAVE
    return torch.exp2(octave.float()) * mantissa.repeat(_OCTAVES[1] - _OCTAVES[0])


@dataclass
class ChannelStatistics:
    """One tensor's values, channel by channel.

    Attributes:
        count: values seen in each channel.
        minimum, maximum, total, total_square: float64 (C,).
        histogram: int32 (2, C, bins): counts of the negative and of the positive values by
            magnitude, see `bin_centres`.
        histogram_count: values that the histogram saw in each channel, zeros included.
    """

    count: int
    minimum: Tensor
    maximum: Tensor
    total: Tensor
    total_square: Tensor
    histogram: Tensor
    histogram_count: int

    @classmethod
    def empty(cls, channels: int) -> ChannelStatistics:
        """Of no values at all."""
        zeros = torch.zeros(channels, dtype=torch.float64)
        return cls(
            0,
            torch.full_like(zeros, torch.inf),
            torch.full_like(zeros, -torch.inf),
            zeros,
            zeros.clone(),
            torch.zeros(2, channels, _BINS, dtype=torch.int32),
            0,
        )

    @property
    def mean_square(self) -> Tensor:
        """E[x²] of each channel, float64 (C,)."""
        return self.total_square / max(self.count, 1)

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each channel, float64 (C,)."""
        mean = self.total / max(self.count, 1)
        return (self.mean_square - mean.square()).clamp_min(0).sqrt()

    def add(self, values: Tensor) -> None:
        """Count one batch: float32 (N, C, H, W) or (N, C)."""
        if values.dim() == 2:
            values = values[:, :, None, None]
        self.count += values.numel() // values.shape[1]
        # Picture by picture first: several times faster on a fold, which is every other picture.
        self.minimum = torch.minimum(self.minimum, values.amin((2, 3)).amin(0).double())
        self.maximum = torch.maximum(self.maximum, values.amax((2, 3)).amax(0).double())
        self.total = self.total + values.sum((2, 3)).double().sum(0)
        self.total_square = self.total_square + values.square().sum((2, 3)).double().sum(0)
        down, across = (-(-side // HISTOGRAM_SIDE) for side in values.shape[-2:])
        self._count_bins(values[:, :, ::down, ::across])

    def merged(self, other: ChannelStatistics) -> ChannelStatistics:
        """The statistics of both sets of values together."""
        return ChannelStatistics(
            self.count + other.count,
            torch.minimum(self.minimum, other.minimum),
            torch.maximum(self.maximum, other.maximum),
            self.total + other.total,
            self.total_square + other.total_square,
            self.histogram + other.histogram,
            self.histogram_count + other.histogram_count,
        )

    def _count_bins(self, values: Tensor) -> None:
        channels = values.shape[1]
        flat = values.permute(0, 2, 3, 1).reshape(-1, channels)
        self.histogram_count += flat.shape[0]
        # A float32's upper bits are its sign, exponent and leading mantissa: a logarithmic bin.
        bits = flat.contiguous().view(torch.int32) >> (23 - 3)
        magnitude = (bits & 0x7FF) - ((127 + _OCTAVES[0]) << 3)
        index = magnitude.clamp_(-1, _BINS - 1).add_(1)
        index += (bits >= 0).int() * ((_BINS + 1) * channels)
        index += torch.arange(channels, dtype=torch.int32) * (_BINS + 1)
        counts = torch.bincount(index.flatten(), minlength=2 * channels * (_BINS + 1))
        self.histogram += counts.view(2, channels, _BINS + 1)[:, :, 1:]


@dataclass(frozen=True)
class TensorStatistics:
    """One tensor's statistics in folds of pictures."""

    folds: tuple[ChannelStatistics, ...]

    @property
    def whole(self) -> ChannelStatistics:
        """All pictures together."""
        first, *others = self.folds
        for other in others:
            first = first.merged(other)
        return first

    def merged(self, other: TensorStatistics) -> TensorStatistics:
        """The statistics of two tensors whose channels mean the same, fold by fold."""
        return TensorStatistics(
            tuple(a.merged(b) for a, b in zip(self.folds, other.folds, strict=True))
        )


class StatisticsCollector:
    """Watches the inputs of a network's layers; a context manager, as the hooks must go again."""

    def __init__(self, network: EfficientNet) -> None:
        self._network = network
        self._folds: dict[str, list[ChannelStatistics]] = {}
        self._images = 0
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> StatisticsCollector:
        for layer in NetworkPath.of(self._network).inputs:
            module = layer.module(self._network)
            self._handles.append(module.register_forward_pre_hook(self._hook(layer.name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def run(self, batch: Tensor) -> Tensor:
        """Pass one normalized batch, float32 (N, 3, H, W), and give its logits.

        Raises:
            CalibrationError: the network's output is not finite for these pictures.
        """
        with torch.inference_mode():
            logits: Tensor = self._network(batch.contiguous(memory_format=torch.channels_last))
        self._images += batch.shape[0]
        if not bool(torch.isfinite(logits).all()):
            raise CalibrationError(
                "the network's logits are NaN or infinite on the calibration pictures"
            )
        return logits

    def statistics(self) -> dict[str, TensorStatistics]:
        """What was seen so far, by the name of the layer that reads it."""
        return {name: TensorStatistics(tuple(folds)) for name, folds in self._folds.items()}

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def add(_: nn.Module, inputs: tuple[Tensor]) -> None:
            (values,) = inputs
            folds = self._folds.setdefault(
                name, [ChannelStatistics.empty(values.shape[1]) for _ in range(FOLDS)]
            )
            for fold, statistics in enumerate(folds):
                part = values[(fold - self._images) % FOLDS :: FOLDS]
                if part.shape[0]:
                    statistics.add(part)

        return add
