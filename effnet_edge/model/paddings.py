"""What convolutions are padded with: by a convention, and by the size of what they read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet_edge.model.variants import Padding, Variant
    from effnet_edge.size import Size

Pads = tuple[tuple[int, int], tuple[int, int]]
"""Pixels above and below, left and right."""

STEM_KERNEL, STEM_STRIDE = 3, 2
# The layer of a block that is not 1×1.
_SPATIAL = {"mbconv": "depthwise", "fused": "expand", "conv": "project"}


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding (before, after) for one axis of `size` pixels.

    The output has ceil(size / stride) pixels, and the odd pixel of padding goes after:
    https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pads_of(
    padding: Padding, reads: Size, kernel: int, stride: int, *, skips_pixels: bool = False
) -> Pads:
    """What a convolution that reads a map of that size is padded with.

    Args:
        skips_pixels: as in `StageSpec`.
    """
    if padding == "symmetric" or (padding == "same" and skips_pixels):
        side = (kernel - 1) // 2
        return (side, side), (side, side)
    return same_padding(reads.height, kernel, stride), same_padding(reads.width, kernel, stride)


@dataclass(frozen=True)
class StridedConvolution:
    """One that skips pixels, and so is padded by whether what it reads is even or odd.

    All others are padded alike at every size.

    Attributes:
        name: our module's path.
        block: its number in the network; None of the stem.
        skips_pixels: as in `StageSpec`.
    """

    name: str
    block: int | None
    kernel: int
    stride: int
    reads: Size
    skips_pixels: bool = False

    def pads(self, padding: Padding) -> Pads:
        """What it is padded with by that convention."""
        return pads_of(
            padding, self.reads, self.kernel, self.stride, skips_pixels=self.skips_pixels
        )


def strided_convolutions(variant: Variant, size: Size) -> Iterator[StridedConvolution]:
    """Those of the variant with an input of that size, first to last."""
    yield StridedConvolution("stem.conv", None, STEM_KERNEL, STEM_STRIDE, size)
    size = size.strided(STEM_STRIDE)
    index = 0
    for stage_index, stage in enumerate(variant.stages()):
        for block_index, block in enumerate(stage):
            if block.stride > 1:
                name = f"stages.{stage_index}.{block_index}.{_SPATIAL[block.kind]}.conv"
                skips = block.skips_pixels
                yield StridedConvolution(name, index, block.kernel, block.stride, size, skips)
            size = size.strided(block.stride)
            index += 1
