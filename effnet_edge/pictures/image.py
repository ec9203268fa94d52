"""From a picture to the network's input: the same pixels on the build host and on the device.

Everything here is integer arithmetic of one library, Pillow, so that two machines agree. The
geometry is that of the TensorFlow EfficientNet reference (`preprocessing.py`,
`_decode_and_center_crop`), for any height and width: cut the centre first, then resize it. The
resampling filter therefore never sees a pixel outside the crop, which `Image.resize(box=...)` would
let it do. A network of other channels than RGB gets them by the same geometry and arithmetic.
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
from effnet_edge.pictures.fitting import FITS, Fit, window
from effnet_edge.size import Size

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

    resolution: Size
    """Of the network's input; a number given for it is the side of a square."""
    crop_fraction: float
    """Share of the height and width that `fit` takes that is cut from the centre, in (0, 1]."""
    interpolation: str
    """`bicubic` or `bilinear`."""
    mean: tuple[float, ...]
    """Per channel (R, G, B for three of them), for pixel values scaled to 0..1."""
    std: tuple[float, ...]
    """Per channel, as many as of `mean`, for pixel values scaled to 0..1; above 0."""
    fit: Fit = "crop"
    """How a picture of another shape is brought to that of the input."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolution", Size.of(self.resolution))
        if self.fit not in FITS:
            raise UsageError(f"preprocessing: fit is {self.fit!r}; choose one of {', '.join(FITS)}")
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

    @property
    def border(self) -> tuple[int, ...]:
        """The pixel of the borders under `pad`: the mean, which normalization brings near 0."""
        return tuple(min(max(round(255 * value), 0), 255) for value in self.mean)


def crop_and_resize(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Cut the centre and resize it: uint8 (H, W, C) to uint8 of the input's height and width.

    `window` says how much; where the margins cannot be equal, the top and left ones are the wider,
    as in the reference, and of the borders under `pad` the bottom and right ones, as in timm.

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
    target = preprocessing.resolution
    placed = window(Size(height, width), target, preprocessing.fit, preprocessing.crop_fraction)
    rows, columns = placed.cut.height, placed.cut.width
    top, left = (height - rows + 1) // 2, (width - columns + 1) // 2
    centre = pixels[top : top + rows, left : left + columns]
    return _bordered(_resized(centre, placed.shown, preprocessing), preprocessing)


def _resized(pixels: Pixels, size: Size, preprocessing: Preprocessing) -> Pixels:
    if pixels.shape[2] == 3:
        return _resampled(pixels, size, preprocessing)
    # Band by band: Pillow multiplies the colours of RGBA by alpha before it resizes them.
    bands = [_resampled(band, size, preprocessing) for band in np.moveaxis(pixels, 2, 0)]
    return np.stack(bands, axis=2)


def _resampled(pixels: Pixels, size: Size, preprocessing: Preprocessing) -> Pixels:
    image, filtered = Image.fromarray(pixels), _FILTERS[preprocessing.interpolation]
    # Along the rows first: each pass rounds, and Pillow takes them in this order up to version 12
    # and in the cheaper one from 13 on.
    for shape in ((size.width, image.height), (size.width, size.height)):
        image = image.resize(shape, filtered)
    return np.array(image)


def _bordered(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """In the middle of the input, whose borders have the mean's colour."""
    target, (height, width) = preprocessing.resolution, pixels.shape[:2]
    if (height, width) == (target.height, target.width):
        return pixels
    whole = np.empty((target.height, target.width, preprocessing.channels), np.uint8)
    whole[:] = preprocessing.border
    top, left = (target.height - height) // 2, (target.width - width) // 2
    whole[top : top + height, left : left + width] = pixels
    return whole


def prepare(source: ImageSource, preprocessing: Preprocessing) -> Pixels:
    """Read a picture and make it the network's input: uint8 (H, W, C), RGB where C is 3.

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
