"""The EfficientNet family as data: one base network and one row of scaling factors a variant.

Source: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019 (table 1 is the base network, section 3.3 compound scaling), and the authors' TensorFlow
reference implementation for the rounding rules. This module imports nothing heavy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

Padding = Literal["same", "symmetric"]
"""TensorFlow's SAME, asymmetric at stride 2, or PyTorch's."""

IMAGENET_CLASSES = 1000
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
SQUEEZE_RATIO = 0.25
CHANNEL_DIVISOR = 8


@dataclass(frozen=True)
class StageSpec:
    """One row of the paper's table 1, before scaling."""

    expand_ratio: int
    kernel: int
    stride: int
    channels: int
    repeats: int


BASE_STAGES = (
    StageSpec(expand_ratio=1, kernel=3, stride=1, channels=16, repeats=1),
    StageSpec(expand_ratio=6, kernel=3, stride=2, channels=24, repeats=2),
    StageSpec(expand_ratio=6, kernel=5, stride=2, channels=40, repeats=2),
    StageSpec(expand_ratio=6, kernel=3, stride=2, channels=80, repeats=3),
    StageSpec(expand_ratio=6, kernel=5, stride=1, channels=112, repeats=3),
    StageSpec(expand_ratio=6, kernel=5, stride=2, channels=192, repeats=4),
    StageSpec(expand_ratio=6, kernel=3, stride=1, channels=320, repeats=1),
)


@dataclass(frozen=True)
class BlockSpec:
    """One MBConv block after scaling."""

    in_channels: int
    out_channels: int
    expand_ratio: int
    kernel: int
    stride: int

    @property
    def expanded_channels(self) -> int:
        """Channels of the depthwise convolution."""
        return self.in_channels * self.expand_ratio

    @property
    def squeeze_channels(self) -> int:
        """Channels of the squeeze-excitation bottleneck: a quarter of the block's input."""
        return max(1, int(self.in_channels * SQUEEZE_RATIO))

    @property
    def has_shortcut(self) -> bool:
        """Whether input and output have the same shape, and so are added."""
        return self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True)
class Variant:
    """One member of the family.

    Attributes:
        width, depth: scaling factors of the channels and of the repeats.
        resolution: side of the input in pixels.
        dropout: before the classifier.
        bundled_weights: name of the weights that travel in the package, if any do.
    """

    name: str
    width: float
    depth: float
    resolution: int
    dropout: float
    bundled_weights: str | None = None

    @property
    def crop_fraction(self) -> float:
        """Share of the short side that evaluation crops: the reference leaves 32 px of margin."""
        return self.resolution / (self.resolution + 32)

    @property
    def stem_channels(self) -> int:
        """Output channels of the stem convolution."""
        return round_channels(STEM_CHANNELS, self.width)

    @property
    def head_channels(self) -> int:
        """Channels of the last 1×1 convolution, which the classifier sees."""
        return round_channels(HEAD_CHANNELS, self.width)

    def stages(self) -> list[list[BlockSpec]]:
        """The scaled blocks, stage by stage."""
        stages = []
        channels = self.stem_channels
        for stage in BASE_STAGES:
            out_channels = round_channels(stage.channels, self.width)
            blocks = []
            for index in range(round_repeats(stage.repeats, self.depth)):
                stride = stage.stride if index == 0 else 1
                blocks.append(
                    BlockSpec(channels, out_channels, stage.expand_ratio, stage.kernel, stride)
                )
                channels = out_channels
            stages.append(blocks)
        return stages

    def parameter_count(self, num_classes: int = IMAGENET_CLASSES, in_channels: int = 3) -> int:
        """Trainable parameters, batch norm's scale and shift included."""
        return sum(self._parameter_counts(num_classes, in_channels))

    def _parameter_counts(self, num_classes: int, in_channels: int) -> Iterator[int]:
        yield _conv_bn_parameters(in_channels, self.stem_channels, kernel=3)
        for block in (block for stage in self.stages() for block in stage):
            if block.expand_ratio != 1:
                yield _conv_bn_parameters(block.in_channels, block.expanded_channels, kernel=1)
            yield _conv_bn_parameters(1, block.expanded_channels, block.kernel)
            yield (2 * block.expanded_channels + 1) * block.squeeze_channels
            yield block.expanded_channels
            yield _conv_bn_parameters(block.expanded_channels, block.out_channels, kernel=1)
        last_channels = self.stages()[-1][-1].out_channels
        yield _conv_bn_parameters(last_channels, self.head_channels, kernel=1)
        yield (self.head_channels + 1) * num_classes


def _conv_bn_parameters(in_channels_per_group: int, out_channels: int, kernel: int) -> int:
    return out_channels * (in_channels_per_group * kernel * kernel + 2)


def round_channels(channels: int, width: float) -> int:
    """Scale channels, round to the nearest multiple of 8, never more than 10 % below."""
    scaled = channels * width
    rounded = max(
        CHANNEL_DIVISOR, int(scaled + CHANNEL_DIVISOR / 2) // CHANNEL_DIVISOR * CHANNEL_DIVISOR
    )
    if rounded < 0.9 * scaled:
        rounded += CHANNEL_DIVISOR
    return rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Scale the repeats of a stage, rounding up."""
    return math.ceil(depth * repeats)


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(
            "b0", width=1.0, depth=1.0, resolution=224, dropout=0.2, bundled_weights="imagenet"
        ),
        Variant("b1", width=1.0, depth=1.1, resolution=240, dropout=0.2),
        Variant("b2", width=1.1, depth=1.2, resolution=260, dropout=0.3),
        Variant("b3", width=1.2, depth=1.4, resolution=300, dropout=0.3),
        Variant("b4", width=1.4, depth=1.8, resolution=380, dropout=0.4),
        Variant("b5", width=1.6, depth=2.2, resolution=456, dropout=0.4),
        Variant("b6", width=1.8, depth=2.6, resolution=528, dropout=0.5),
        Variant("b7", width=2.0, depth=3.1, resolution=600, dropout=0.5),
    )
}


def get_variant(name: str) -> Variant:
    """The variant called `name`, in any case; raises `UsageError` for an unknown one."""
    try:
        return VARIANTS[name.lower()]
    except KeyError:
        raise UsageError(f"unknown variant '{name}': choose one of {', '.join(VARIANTS)}") from None
