"""What convolutions are padded with: by a convention, and by the size of what they read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnet_edge.model.variants import Padding
    from effnet_edge.size import Size

Pads = tuple[tuple[int, int], tuple[int, int]]
"""Pixels above and below, left and right."""


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
