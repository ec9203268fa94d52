"""The EfficientNets: one row of scaling factors a variant, and what follows from them.

Source: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019, section 3.3, and the pages that the rows name. This module imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from effnet_edge.errors import UsageError
from effnet_edge.labels import IMAGENET_CLASSES
from effnet_edge.model.architecture import ConvolutionSpec, round_channels, round_repeats
from effnet_edge.model.families import EDGETPU, EFFICIENTNET, LITE, V2_BASE, V2_L, V2_M, V2_S
from effnet_edge.size import Size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet_edge.model.architecture import BlockSpec, Family

Padding = Literal["same", "symmetric", "same-timm"]
"""TensorFlow's SAME, asymmetric at stride 2, or PyTorch's; "same-timm" is SAME in blocks that skip
pixels, too, which "same" pads as what their authors compute comes out: symmetrically."""


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
        resolution: side in pixels of the square input that it was published for.
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
        stages: list[list[BlockSpec]] = []
        channels = self.stem_channels
        for index, stage in enumerate(self.family.stages):
            out_channels = self._round(stage.channels)
            stages.append(stage.blocks(channels, out_channels, self._repeats(index)))
            channels = out_channels
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
        resolution: Size | int | None = None,
        num_classes: int = IMAGENET_CLASSES,
        in_channels: int = 3,
    ) -> int:
        """Multiply-add operations of the convolutions and the classifier for one image."""
        size = Size.of(self.resolution if resolution is None else resolution)
        total = self.head_channels * num_classes
        for conv in self._convolutions(in_channels):
            size = size.strided(conv.stride)
            total += conv.weights * size.pixels
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


PAPER = "Tan & Le 2019, table 2"
ADVPROP = "Xie et al. 2020 (AdvProp)"
NOISY_STUDENT = "Xie et al. 2020 (Noisy Student)"
LITE_PAGE = "github.com/tensorflow/tpu, models/official/efficientnet/lite"
EDGETPU_PAGE = "github.com/tensorflow/tpu, models/official/efficientnet/edgetpu"
V2_PAGE = "github.com/google/automl, efficientnetv2"

# name, width, depth, resolution, dropout, top-1 in percent
_Row = tuple[str, float, float, int, float, float]


def _rows(family: Family, source: str, *rows: _Row) -> dict[str, Variant]:
    """Variants of one family whose accuracies were published in one place."""
    return {
        name: Variant(name, width, depth, resolution, dropout, Published(top1, source), family)
        for name, width, depth, resolution, dropout, top1 in rows
    }


VARIANTS = {
    **_rows(
        EFFICIENTNET,
        PAPER,
        ("b0", 1.0, 1.0, 224, 0.2, 77.1),
        ("b1", 1.0, 1.1, 240, 0.2, 79.1),
        ("b2", 1.1, 1.2, 260, 0.3, 80.1),
        ("b3", 1.2, 1.4, 300, 0.3, 81.6),
        ("b4", 1.4, 1.8, 380, 0.4, 82.9),
        ("b5", 1.6, 2.2, 456, 0.4, 83.6),
        ("b6", 1.8, 2.6, 528, 0.5, 84.0),
        ("b7", 2.0, 3.1, 600, 0.5, 84.3),
    ),
    **_rows(EFFICIENTNET, ADVPROP, ("b8", 2.2, 3.6, 672, 0.5, 85.5)),
    **_rows(EFFICIENTNET, NOISY_STUDENT, ("l2", 4.3, 5.3, 800, 0.5, 88.4)),
    **_rows(
        LITE,
        LITE_PAGE,
        ("lite0", 1.0, 1.0, 224, 0.2, 75.1),
        ("lite1", 1.0, 1.1, 240, 0.2, 76.7),
        ("lite2", 1.1, 1.2, 260, 0.3, 77.6),
        ("lite3", 1.2, 1.4, 280, 0.3, 79.8),
        ("lite4", 1.4, 1.8, 300, 0.3, 81.5),
    ),
    **_rows(
        EDGETPU,
        EDGETPU_PAGE,
        ("es", 1.0, 1.0, 224, 0.2, 77.23),
        ("em", 1.0, 1.1, 240, 0.2, 78.69),
        ("el", 1.2, 1.4, 300, 0.3, 80.62),
    ),
    **_rows(V2_S, V2_PAGE, ("v2-s", 1.0, 1.0, 384, 0.2, 83.9)),
    **_rows(V2_M, V2_PAGE, ("v2-m", 1.0, 1.0, 480, 0.3, 85.2)),
    **_rows(V2_L, V2_PAGE, ("v2-l", 1.0, 1.0, 480, 0.4, 85.7)),
    **_rows(
        V2_BASE,
        V2_PAGE,
        ("v2-b0", 1.0, 1.0, 224, 0.2, 78.7),
        ("v2-b1", 1.0, 1.1, 240, 0.2, 79.8),
        ("v2-b2", 1.1, 1.2, 260, 0.3, 80.5),
        ("v2-b3", 1.2, 1.4, 300, 0.3, 82.1),
    ),
}


def get_variant(name: str) -> Variant:
    """The variant called `name`, in any case; raises `UsageError` for an unknown one."""
    try:
        return VARIANTS[name.lower()]
    except KeyError:
        raise UsageError(f"unknown variant '{name}': choose one of {', '.join(VARIANTS)}") from None
