"""What an EfficientNet is made of: the stages of a base network, and blocks as scaling gives them.

Source: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019 (section 3.3 is compound scaling), and the authors' TensorFlow reference implementation
for the rounding rules. This module imports nothing heavy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Activation = Literal["silu", "relu", "relu6"]

Pooling = Literal["avg", "max", "avgmax"]
"""What makes one number of a channel of the head's output: its mean over height and width, its
maximum, or the mean of these two."""

BlockKind = Literal["mbconv", "fused", "conv"]
"""Expansion, depthwise convolution and projection; the first two fused into one full convolution
(Tan & Le 2021, figure 2); or a single full convolution with an activation."""


SQUEEZE_RATIO = 0.25
CHANNEL_DIVISOR = 8


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One row of a base network's table, before scaling.

    Attributes:
        has_shortcut: whether blocks whose input and output have the same shape add them.
        expands_output: whether the expanded channels are counted from the block's output.
        skips_pixels: the reference convolves at stride 1 and lets the projection skip pixels. A
            strided convolution with symmetric padding gives just the pixels that are not skipped.
    """

    expand_ratio: int
    kernel: int
    stride: int
    channels: int
    repeats: int
    kind: BlockKind = "mbconv"
    squeeze_excitation: bool = True
    has_shortcut: bool = True
    expands_output: bool = False
    skips_pixels: bool = False

    def blocks(self, in_channels: int, out_channels: int, repeats: int) -> list[BlockSpec]:
        """The stage after scaling: only its first block strides and changes the channels."""
        first = BlockSpec(
            in_channels=in_channels,
            out_channels=out_channels,
            expand_ratio=self.expand_ratio,
            kernel=self.kernel,
            stride=self.stride,
            kind=self.kind,
            squeeze_excitation=self.squeeze_excitation,
            allows_shortcut=self.has_shortcut,
            expands_output=self.expands_output,
            skips_pixels=self.skips_pixels,
        )
        return [first, *[replace(first, in_channels=out_channels, stride=1)] * (repeats - 1)]


@dataclass(frozen=True)
class Family:
    """A base network, and how it is scaled.

    Attributes:
        stem_channels, head_channels: before scaling.
        fixed_ends: stem, head and the repeats of the first and last stage are not scaled.
        largest_loss: the share of its channels that a stage may lose to rounding.
        crop_margin: pixels that evaluation leaves around the crop, both sides together.
        centred_pixels: pixels are brought to [−1, 1], not to ImageNet's mean and deviation.
    """

    name: str
    stages: tuple[StageSpec, ...]
    stem_channels: int
    activation: Activation = "silu"
    head_channels: int = 1280
    fixed_ends: bool = False
    largest_loss: float = 0.1
    crop_margin: int = 32
    centred_pixels: bool = False


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """One block after scaling."""

    in_channels: int
    out_channels: int
    expand_ratio: int
    kernel: int
    stride: int
    kind: BlockKind = "mbconv"
    squeeze_excitation: bool = True
    allows_shortcut: bool = True
    expands_output: bool = False
    skips_pixels: bool = False

    @property
    def expanded_channels(self) -> int:
        """Channels that the projection reads."""
        counted = self.out_channels if self.expands_output else self.in_channels
        return counted * self.expand_ratio

    @property
    def squeeze_channels(self) -> int:
        """Channels of the squeeze-excitation bottleneck: a quarter of the block's input."""
        return max(1, int(self.in_channels * SQUEEZE_RATIO))

    @property
    def has_shortcut(self) -> bool:
        """Whether input and output, which have the same shape, are added."""
        same_shape = self.stride == 1 and self.in_channels == self.out_channels
        return self.allows_shortcut and same_shape

    def layers(self) -> Iterator[ConvolutionSpec]:
        """The convolutions with a batch norm, first to last."""
        expanded = self.expanded_channels
        if self.kind == "conv":
            yield ConvolutionSpec(self.in_channels, self.out_channels, self.kernel, self.stride)
            return
        if self.kind == "fused":
            yield ConvolutionSpec(self.in_channels, expanded, self.kernel, self.stride)
        else:
            if self.expand_ratio != 1:
                yield ConvolutionSpec(self.in_channels, expanded, 1, 1)
            yield ConvolutionSpec(1, expanded, self.kernel, self.stride)
        yield ConvolutionSpec(expanded, self.out_channels, 1, 1)


@dataclass(frozen=True)
class ConvolutionSpec:
    """A convolution's size."""

    in_channels_per_group: int
    out_channels: int
    kernel: int
    stride: int

    @property
    def weights(self) -> int:
        """How many."""
        return self.out_channels * self.in_channels_per_group * self.kernel**2


def round_channels(channels: int, width: float, largest_loss: float = 0.1) -> int:
    """Scale channels, round to the nearest multiple of 8, never more than `largest_loss` below."""
    scaled = channels * width
    rounded = max(
        CHANNEL_DIVISOR, int(scaled + CHANNEL_DIVISOR / 2) // CHANNEL_DIVISOR * CHANNEL_DIVISOR
    )
    if rounded < (1 - largest_loss) * scaled:
        rounded += CHANNEL_DIVISOR
    return rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Scale the repeats of a stage, rounding up."""
    return math.ceil(depth * repeats)
