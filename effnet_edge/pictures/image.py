"""From a picture to the network's input: the same pixels on the build host and on the device.

Everything here is integer arithmetic of one library, Pillow, so that two machines agree. The
geometry is that of the TensorFlow EfficientNet reference (`preprocessing.py`,
`_decode_and_center_crop`): cut the centre square first, then resize it. The resampling filter
therefore never sees a pixel outside the crop, which `Image.resize(box=...)` would let it do. A
network of other channels than RGB gets them by the same geometry and arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from effnet_edge.errors import ImageError, UsageError
from effnet_edge.pictures.decoding import (
    MAX_CHANNELS,
    ImageSource,
    Pixels,
    decode,
    describe,
    picture_extensions,
)

__all__ = [
    "MAX_CHANNELS",
    "ImageSource",
    "Pixels",
    "Preprocessing",
    "crop_and_resize",
    "decode",
    "normalize",
    "picture_extensions",
    "prepare",
]

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Preprocessing:
    """What turns a picture into the network's input.

    Raises `UsageError` where a value is out of its range.
    """

    resolution: int
    """Side of the network's square input, pixels, 1 or more."""
    crop_fraction: float
    """Side of the centre crop as a share of the picture's short side, in (0, 1]."""
    interpolation: str
    """`bicubic` or `bilinear`."""
    mean: tuple[float, ...]
    """Per channel (R, G, B for three of them), for pixel values scaled to 0..1."""
    std: tuple[float, ...]
    """Per channel, as many as of `mean`, for pixel values scaled to 0..1; above 0."""

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise UsageError(
                f"preprocessing: resolution is {self.resolution}; it must be 1 or more"
            )
        if not 0 < self.crop_fraction <= 1:
            raise UsageError(
                f"preprocessing: crop_fraction is {self.crop_fraction}; "
                "it must be above 0 and at most 1"
            )
        if self.interpolation not in _FILTERS:
            raise UsageError(
                f"preprocessing: interpolation is {self.interpolation!r}; "
                f"choose one of {', '.join(_FILTERS)}"
            )
        if not 1 <= len(self.mean) <= MAX_CHANNELS or not all(map(math.isfinite, self.mean)):
            raise UsageError(
                f"preprocessing: mean is {self.mean}; it must be 1 to {MAX_CHANNELS} finite "
                "numbers, one a channel"
            )
        if len(self.std) != self.channels or not all(0 < value < math.inf for value in self.std):
            raise UsageError(
                f"preprocessing: std is {self.std}; it must be {self.channels} numbers above 0, "
                "as many as of mean"
            )

    @property
    def channels(self) -> int:
        """Of the network's input: 1 for greyscale, 3 for RGB, 16 at most."""
        return len(self.mean)


def crop_and_resize(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Cut the centre square and resize it: uint8 (H, W, C) to uint8 (R, R, C).

    The side of the square is `crop_fraction` of the short side, rounded down, at least 1; where
    the margins cannot be equal, the top and left ones are the wider. Both as in the reference.

    Raises `ImageError` where `pixels` is not a non-empty uint8 (H, W, C) array.
    """
    channels = preprocessing.channels
    if (
        pixels.dtype != np.uint8
        or pixels.ndim != 3
        or pixels.shape[2] != channels
        or pixels.size == 0
    ):
        raise ImageError(f"pixels must be uint8 (H, W, {channels}), not {describe(pixels)}")
    height, width = pixels.shape[:2]
    # 0.88 of 25 is 22 and not 21.999…: float error must not cost a row.
    side = max(1, math.floor(preprocessing.crop_fraction * min(height, width) + 1e-6))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    square = pixels[top : top + side, left : left + side]
    if channels == 3:
        return _resized(square, preprocessing)
    # Band by band: Pillow multiplies the colours of RGBA by alpha before it resizes them.
    return np.stack([_resized(band, preprocessing) for band in np.moveaxis(square, 2, 0)], axis=2)


def _resized(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    size = (preprocessing.resolution, preprocessing.resolution)
    return np.array(Image.fromarray(pixels).resize(size, _FILTERS[preprocessing.interpolation]))


def prepare(source: ImageSource, preprocessing: Preprocessing) -> Pixels:
    """Read a picture and make it the network's input: uint8 (R, R, C), RGB where C is 3.

    Raises what `decode` raises.
    """
    return crop_and_resize(decode(source, preprocessing.channels), preprocessing)


def normalize(batch: Pixels, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Scale uint8 (N, H, W, C) to float32 (N, C, H, W): (x / 255 - mean) / std.

    Raises `ImageError` where `batch` is not a uint8 (N, H, W, C) array.
    """
    channels = preprocessing.channels
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != channels:
        raise ImageError(f"a batch must be uint8 (N, H, W, {channels}), not {describe(batch)}")
    mean = np.asarray(preprocessing.mean, np.float32)
    std = np.asarray(preprocessing.std, np.float32)
    scaled = (batch.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
