"""The EfficientNets as data: a few base networks and one row of scaling factors a variant.

Source: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019 (table 1 is the base network, section 3.3 compound scaling), and the authors' TensorFlow
reference implementation for the rounding rules. This module imports nothing heavy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from effnet_edge.errors import UsageError
from effnet_edge.labels import IMAGENET_CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator

Padding = Literal["same", "symmetric"]
"""TensorFlow's SAME, asymmetric at stride 2, or PyTorch's."""

Activation = Literal["silu", "relu", "relu6"]

BlockKind = Literal["mbconv", "fused", "conv"]
"""Expansion, depthwise convolution and projection; the first two fused into one full convolution
(Tan & Le 2021, figure 2); or a single full convolution with an activation."""


SQUEEZE_RATIO = 0.25
CHANNEL_DIVISOR = 8


@dataclass(frozen=True)
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


# Tan & Le 2019, table 1.
BASE_STAGES = (
    StageSpec(expand_ratio=1, kernel=3, stride=1, channels=16, repeats=1),
    StageSpec(expand_ratio=6, kernel=3, stride=2, channels=24, repeats=2),
    StageSpec(expand_ratio=6, kernel=5, stride=2, channels=40, repeats=2),
    StageSpec(expand_ratio=6, kernel=3, stride=2, channels=80, repeats=3),
    StageSpec(expand_ratio=6, kernel=5, stride=1, channels=112, repeats=3),
    StageSpec(expand_ratio=6, kernel=5, stride=2, channels=192, repeats=4),
    StageSpec(expand_ratio=6, kernel=3, stride=1, channels=320, repeats=1),
)

EFFICIENTNET = Family("EfficientNet", BASE_STAGES, stem_channels=32)

# https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
LITE = Family(
    "EfficientNet-Lite",
    tuple(replace(stage, squeeze_excitation=False) for stage in BASE_STAGES),
    stem_channels=32,
    activation="relu6",
    fixed_ends=True,
    centred_pixels=True,
)

# https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/edgetpu
EDGETPU = Family(
    "EfficientNet-EdgeTPU",
    (
        StageSpec(4, 3, 1, 24, 1, "fused", False, has_shortcut=False, expands_output=True),
        StageSpec(8, 3, 2, 32, 2, "fused", False, skips_pixels=True),
        StageSpec(8, 3, 2, 48, 4, "fused", False, skips_pixels=True),
        StageSpec(8, 5, 2, 96, 5, "mbconv", False),
        StageSpec(8, 5, 1, 144, 4, "mbconv", False),
        StageSpec(8, 5, 2, 192, 2, "mbconv", False),
    ),
    stem_channels=32,
    activation="relu",
    centred_pixels=True,
)

# Tan & Le 2021, "EfficientNetV2: Smaller Models and Faster Training", table 4, and the authors'
# https://github.com/google/automl/tree/master/efficientnetv2 for M, L and the base network.
V2_S = Family(
    "EfficientNetV2",
    (
        StageSpec(1, 3, 1, 24, 2, "conv", False),
        StageSpec(4, 3, 2, 48, 4, "fused", False),
        StageSpec(4, 3, 2, 64, 4, "fused", False),
        StageSpec(4, 3, 2, 128, 6),
        StageSpec(6, 3, 1, 160, 9),
        StageSpec(6, 3, 2, 256, 15),
    ),
    stem_channels=24,
    crop_margin=0,
    centred_pixels=True,
)
V2_M = replace(
    V2_S,
    stages=(
        StageSpec(1, 3, 1, 24, 3, "conv", False),
        StageSpec(4, 3, 2, 48, 5, "fused", False),
        StageSpec(4, 3, 2, 80, 5, "fused", False),
        StageSpec(4, 3, 2, 160, 7),
        StageSpec(6, 3, 1, 176, 14),
        StageSpec(6, 3, 2, 304, 18),
        StageSpec(6, 3, 1, 512, 5),
    ),
)
V2_L = replace(
    V2_S,
    stages=(
        StageSpec(1, 3, 1, 32, 4, "conv", False),
        StageSpec(4, 3, 2, 64, 7, "fused", False),
        StageSpec(4, 3, 2, 96, 7, "fused", False),
        StageSpec(4, 3, 2, 192, 10),
        StageSpec(6, 3, 1, 224, 19),
        StageSpec(6, 3, 2, 384, 25),
        StageSpec(6, 3, 1, 640, 7),
    ),
    stem_channels=32,
)
V2_BASE = Family(
    "EfficientNetV2",
    (
        StageSpec(1, 3, 1, 16, 1, "conv", False),
        StageSpec(4, 3, 2, 32, 2, "fused", False),
        StageSpec(4, 3, 2, 48, 2, "fused", False),
        StageSpec(4, 3, 2, 96, 3),
        StageSpec(6, 3, 1, 112, 5),
        StageSpec(6, 3, 2, 192, 8),
    ),
    stem_channels=32,
    largest_loss=1.0,
)


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Published:
    """ImageNet top-1 accuracy of the authors' weights.

    Attributes:
        top1: percent, single crop, at the variant's resolution.
        source: paper and table, or the authors' page.
    """

    top1: float
    source: str


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        width, depth: scaling factors of the channels and of the repeats.
        resolution: side of the input in pixels.
        dropout: before the classifier.
    """

    name: str
    width: float
    depth: float
    resolution: int
    dropout: float
    published: Published
    family: Family = EFFICIENTNET

    @property
    def title(self) -> str:
        """What its authors call it: "EfficientNet-B0", "EfficientNet-Lite0"."""
        if self.family is LITE:
            return f"{self.family.name}{self.name.removeprefix('lite')}"
        if self.family is EDGETPU:
            return f"{self.family.name}-{self.name[1:].upper()}"
        return f"{self.family.name}-{self.name.removeprefix('v2-').upper()}"

    @property
    def crop_fraction(self) -> float:
        """Share of the short side that evaluation crops; most references leave 32 px of margin."""
        return self.resolution / (self.resolution + self.family.crop_margin)

    @property
    def stem_channels(self) -> int:
        """Output channels of the stem convolution."""
        return self._end_channels(self.family.stem_channels)

    @property
    def head_channels(self) -> int:
        """Channels of the last 1×1 convolution, which the classifier sees."""
        return self._end_channels(self.family.head_channels)

    def _end_channels(self, channels: int) -> int:
        return channels if self.family.fixed_ends else self._round(channels)

    def _round(self, channels: int) -> int:
        return round_channels(channels, self.width, self.family.largest_loss)

    def stages(self) -> list[list[BlockSpec]]:
        """The scaled blocks, stage by stage."""
        stages = []
        channels = self.stem_channels
        for index, stage in enumerate(self.family.stages):
            out_channels = self._round(stage.channels)
            blocks = []
            for repeat in range(self._repeats(index)):
                blocks.append(
                    BlockSpec(
                        channels,
                        out_channels,
                        stage.expand_ratio,
                        stage.kernel,
                        stage.stride if repeat == 0 else 1,
                        stage.kind,
                        stage.squeeze_excitation,
                        stage.has_shortcut,
                        stage.expands_output,
                        stage.skips_pixels,
                    )
                )
                channels = out_channels
            stages.append(blocks)
        return stages

    def _repeats(self, index: int) -> int:
        stages = self.family.stages
        is_end = index in (0, len(stages) - 1)
        depth = 1.0 if self.family.fixed_ends and is_end else self.depth
        return round_repeats(stages[index].repeats, depth)

    def parameter_count(self, num_classes: int = IMAGENET_CLASSES, in_channels: int = 3) -> int:
        """Trainable parameters, batch norm's scale and shift included."""
        return sum(self._parameter_counts(num_classes, in_channels))

    def _parameter_counts(self, num_classes: int, in_channels: int) -> Iterator[int]:
        for conv in self._convolutions(in_channels):
            yield conv.weights + 2 * conv.out_channels
        for block in self._gated_blocks():
            yield (2 * block.expanded_channels + 1) * block.squeeze_channels
            yield block.expanded_channels
        yield (self.head_channels + 1) * num_classes

    def multiply_adds(
        self,
        resolution: int | None = None,
        num_classes: int = IMAGENET_CLASSES,
        in_channels: int = 3,
    ) -> int:
        """Multiply-add operations of the convolutions and the classifier for one image."""
        side = self.resolution if resolution is None else resolution
        total = self.head_channels * num_classes
        for conv in self._convolutions(in_channels):
            side = math.ceil(side / conv.stride)
            total += conv.weights * side * side
        gates = (
            2 * block.expanded_channels * block.squeeze_channels for block in self._gated_blocks()
        )
        return total + sum(gates)

    def _convolutions(self, in_channels: int) -> Iterator[ConvolutionSpec]:
        """All but those of the squeeze-excitations, in the order of execution."""
        stages = self.stages()
        yield ConvolutionSpec(in_channels, self.stem_channels, 3, 2)
        for stage in stages:
            for block in stage:
                yield from block.layers()
        yield ConvolutionSpec(stages[-1][-1].out_channels, self.head_channels, 1, 1)

    def _gated_blocks(self) -> Iterator[BlockSpec]:
        return (block for stage in self.stages() for block in stage if block.squeeze_excitation)


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


_PAPER = "Tan & Le 2019, table 2"
_LITE_PAGE = "github.com/tensorflow/tpu, models/official/efficientnet/lite"
_EDGETPU_PAGE = "github.com/tensorflow/tpu, models/official/efficientnet/edgetpu"
_V2_PAGE = "github.com/google/automl, efficientnetv2"


def _paper(top1: float) -> Published:
    return Published(top1, _PAPER)


def _lite(number: int, width: float, depth: float, resolution: int, top1: float) -> Variant:
    dropout = 0.2 if number < 2 else 0.3
    return Variant(
        f"lite{number}",
        width,
        depth,
        resolution,
        dropout,
        Published(top1, _LITE_PAGE),
        family=LITE,
    )


def _edgetpu(
    name: str, width: float, depth: float, resolution: int, dropout: float, top1: float
) -> Variant:
    published = Published(top1, _EDGETPU_PAGE)
    return Variant(name, width, depth, resolution, dropout, published, family=EDGETPU)


def _v2(
    size: str,
    resolution: int,
    dropout: float,
    top1: float,
    family: Family = V2_BASE,
    width: float = 1.0,
    depth: float = 1.0,
) -> Variant:
    published = Published(top1, _V2_PAGE)
    return Variant(f"v2-{size}", width, depth, resolution, dropout, published, family=family)


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("b0", 1.0, 1.0, 224, 0.2, _paper(77.1)),
        Variant("b1", 1.0, 1.1, 240, 0.2, _paper(79.1)),
        Variant("b2", 1.1, 1.2, 260, 0.3, _paper(80.1)),
        Variant("b3", 1.2, 1.4, 300, 0.3, _paper(81.6)),
        Variant("b4", 1.4, 1.8, 380, 0.4, _paper(82.9)),
        Variant("b5", 1.6, 2.2, 456, 0.4, _paper(83.6)),
        Variant("b6", 1.8, 2.6, 528, 0.5, _paper(84.0)),
        Variant("b7", 2.0, 3.1, 600, 0.5, _paper(84.3)),
        Variant("b8", 2.2, 3.6, 672, 0.5, Published(85.5, "Xie et al. 2020 (AdvProp)")),
        Variant("l2", 4.3, 5.3, 800, 0.5, Published(88.4, "Xie et al. 2020 (Noisy Student)")),
        _lite(0, 1.0, 1.0, 224, 75.1),
        _lite(1, 1.0, 1.1, 240, 76.7),
        _lite(2, 1.1, 1.2, 260, 77.6),
        _lite(3, 1.2, 1.4, 280, 79.8),
        _lite(4, 1.4, 1.8, 300, 81.5),
        _edgetpu("es", 1.0, 1.0, 224, 0.2, 77.23),
        _edgetpu("em", 1.0, 1.1, 240, 0.2, 78.69),
        _edgetpu("el", 1.2, 1.4, 300, 0.3, 80.62),
        _v2("s", 384, 0.2, 83.9, V2_S),
        _v2("m", 480, 0.3, 85.2, V2_M),
        _v2("l", 480, 0.4, 85.7, V2_L),
        _v2("b0", 224, 0.2, 78.7),
        _v2("b1", 240, 0.2, 79.8, width=1.0, depth=1.1),
        _v2("b2", 260, 0.3, 80.5, width=1.1, depth=1.2),
        _v2("b3", 300, 0.3, 82.1, width=1.2, depth=1.4),
    )
}


def get_variant(name: str) -> Variant:
    """The variant called `name`, in any case; raises `UsageError` for an unknown one."""
    try:
        return VARIANTS[name.lower()]
    except KeyError:
        raise UsageError(f"unknown variant '{name}': choose one of {', '.join(VARIANTS)}") from None
