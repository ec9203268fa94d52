"""From a picture to the network's input: the same pixels on the build host and on the device.

Everything here is integer arithmetic of one library, Pillow, so that two machines agree. The
geometry is that of the TensorFlow EfficientNet reference (`preprocessing.py`,
`_decode_and_center_crop`): cut the centre square first, then resize it. The resampling filter
therefore never sees a pixel outside the crop, which `Image.resize(box=...)` would let it do.
JPEG draft mode, which decodes at a fraction of the size, is never used: it changes the pixels.
Colour profiles are ignored, as in the reference. A network of other channels than RGB gets them
by the same geometry and arithmetic.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import stat
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from effnet_edge.errors import ImageError, UsageError
from effnet_edge.pictures.arrays import ARRAY_EXTENSIONS, read_array

if TYPE_CHECKING:
    from collections.abc import Iterator

Pixels: TypeAlias = npt.NDArray[np.uint8]
ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | Pixels

# Pillow's name of each format that is read, and its file extensions. A closed list, because
# Pillow's own is open: with it, a file named .jpg may start Ghostscript.
FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "AVIF": (".avif",),
}

# What holds as many channels as the network takes where that is neither greyscale nor RGB, by
# Pillow's mode. Mode RGBX and TIFFs of more bands are not here: Pillow drops what is above three.
_BANDS = {"LA": 2, "RGBA": 4}
_BAND_FORMATS = ("PNG", "TIFF")

MAX_CHANNELS = 16

# By channels of the network: the last axes that an array may have, beside just these channels.
_GREY, _RGB = "(H, W) greyscale", "(H, W, 3) RGB"
_ARRAYS_TAKEN: dict[int, dict[tuple[int, ...], str]] = {
    1: {(): _GREY, (1,): "(H, W, 1)", (3,): _RGB},
    3: {(3,): _RGB, (): _GREY},
}

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

_EXIF_ORIENTATION = 0x0112
# EXIF 2.32, 4.6.4, tag Orientation: the value, and what makes the picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_warning_filters_in_use = threading.Lock()


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


def picture_extensions(channels: int) -> frozenset[str]:
    """Of the files, lower-case, that may hold a picture of so many channels.

    Greyscale and RGB networks take any picture; the others need files that hold all channels.
    """
    if channels in {1, 3}:
        return frozenset(extension for group in FORMATS.values() for extension in group)
    formats = _BAND_FORMATS if channels in _BANDS.values() else ()
    return ARRAY_EXTENSIONS.union(*(FORMATS[name] for name in formats))


def decode(source: ImageSource, channels: int = 3) -> Pixels:
    """Read a picture as a viewer shows it: uint8 (H, W, channels), RGB or greyscale.

    `source` is a path, the bytes of a picture file, a Pillow image, or a uint8 array (H, W, 3) RGB
    or (H, W) or (H, W, 1) greyscale. The EXIF orientation is applied, transparency is laid over
    white, 16-bit greyscale is scaled to 8 bit, and of an animation the first frame is taken. For
    one channel colours become ITU-R 601-2 luma, as Pillow's mode "L".

    For other numbers of channels nothing is converted: `source` is an array (H, W, channels), or a
    picture of just so many bands (grey and alpha, or RGBA). A `.npy` file, or an `.npz` file of one
    array, stands for that array, whatever the channels.

    Raises `UsageError` where the path does not exist, and `ImageError`, naming the file, where it
    cannot be read, is damaged, has floating-point pixels or other channels, or has more pixels than
    twice `PIL.Image.MAX_IMAGE_PIXELS` (179 million unless changed). Safe to call from several
    threads.
    """
    if isinstance(source, np.ndarray):
        return _convert_array(source, channels, "the image array")
    if isinstance(source, Image.Image):
        with _pillow_errors("Pillow image"):
            return _convert(source, channels, "Pillow image")
    if isinstance(source, bytes):
        return _decode_stream(io.BytesIO(source), channels, "image bytes")
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        name = repr(str(path))
        with _open(path) as stream:
            if path.suffix.lower() in ARRAY_EXTENSIONS:
                return _convert_array(read_array(stream, name), channels, name)
            return _decode_stream(stream, channels, name)
    raise ImageError(
        f"{type(source).__name__} is not a picture: "
        "give a path, bytes, a Pillow image, or a uint8 array"
    )


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
        raise ImageError(f"pixels must be uint8 (H, W, {channels}), not {_describe(pixels)}")
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
        raise ImageError(f"a batch must be uint8 (N, H, W, {channels}), not {_describe(batch)}")
    mean = np.asarray(preprocessing.mean, np.float32)
    std = np.asarray(preprocessing.std, np.float32)
    scaled = (batch.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _convert_array(array: npt.NDArray[np.generic], channels: int, name: str) -> Pixels:
    """An array as it was given or read, to uint8 (H, W, channels)."""
    bands = array.shape[2:] if array.ndim == 3 else ()
    taken = _ARRAYS_TAKEN.get(channels, {(channels,): f"(H, W, {channels})"})
    if array.dtype != np.uint8 or array.ndim not in {2, 3} or bands not in taken:
        raise ImageError(
            f"{name} must be uint8, {' or '.join(taken.values())}, not {_describe(array)}"
        )
    if array.size == 0:
        raise ImageError(f"{name} has no pixels: {_describe(array)}")
    pixels = array.astype(np.uint8)
    if bands in {(), (1,)}:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), channels, axis=2)
    if channels == 1:
        return np.array(Image.fromarray(pixels).convert("L"))[:, :, None]
    return pixels


def _describe(array: npt.NDArray[np.generic]) -> str:
    return f"{array.dtype} ({', '.join(map(str, array.shape))})"


def _open(path: Path) -> BinaryIO:
    name = repr(str(path))
    try:
        # Looked at before it is opened: opening a named pipe would wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImageError(f"{name} is not a file; give the path of a picture")
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{name} does not exist; check the path of the picture") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ImageError(f"{name} cannot be opened: {reason}") from error


def _decode_stream(stream: BinaryIO, channels: int, name: str) -> Pixels:
    with _pillow_errors(name):
        if not stream.read(1):
            raise ImageError(f"{name} is empty")
        stream.seek(0)
        with _pillow_warnings_silenced():
            Image.init()
            formats = [each for each in FORMATS if each in Image.OPEN]
            image = Image.open(stream, formats=formats)
        with image:
            return _convert(image, channels, name)


def _convert(image: Image.Image, channels: int, name: str) -> Pixels:
    """Pillow image of any mode to uint8 (H, W, channels)."""
    if image.width == 0 or image.height == 0:
        raise ImageError(f"{name} has no pixels: {image.width} x {image.height}")
    if image.mode == "F":
        raise ImageError(f"{name} has floating-point pixels; save it with 8 or 16 bits a channel")
    if channels not in {1, 3} and _BANDS.get(image.mode) != channels:
        raise ImageError(
            f"{name} is a picture of mode {image.mode}, and the network takes {channels} channels: "
            f"save all of them in a .npy file, uint8 (H, W, {channels})"
        )
    image.load()
    image = _upright(image)
    if channels not in {1, 3}:
        return np.array(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _grey_from_16_bit(image, name)
    elif image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(opaque, image.convert("RGBA"))
    if channels == 1:
        return np.array(image.convert("L"))[:, :, None]
    return np.array(image.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it writes the EXIF block anew and fails on tags it cannot write.
    try:
        with _pillow_warnings_silenced():
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        # A damaged EXIF block says nothing about the pixels; viewers show the picture as it lies.
        return image
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _grey_from_16_bit(image: Image.Image, name: str) -> Image.Image:
    # Pillow's own conversion clips at 255. Mode "I" has 32 bits, but what it carries in files
    # is 16-bit greyscale; there is no telling what white is where a value exceeds that.
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(f"{name} has 32-bit pixels; save it with 8 or 16 bits a channel")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


@contextlib.contextmanager
def _pillow_errors(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises on a damaged picture into one `ImageError` of one line."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise ImageError(f"{name} is not a picture, or damaged; read are {known}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: {_one_line(error)}") from error
    except MemoryError as error:
        raise ImageError(f"{name} cannot be decoded: not enough memory") from error
    except Exception as error:
        # Pillow's decoders let nearly any exception out: SyntaxError, struct.error, zlib.error, …
        raise ImageError(f"{name} is damaged: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def _pillow_warnings_silenced() -> Iterator[None]:
    """Keep Pillow's remarks on large pictures and odd EXIF blocks from the user's terminal.

    The filters belong to the whole process, so one thread at a time; what is inside is short.
    """
    with _warning_filters_in_use, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield
