"""From a picture to the network's input: the same pixels on the build host and on the device.

Everything here is integer arithmetic of one library, Pillow, so that two machines agree. The
geometry is that of the TensorFlow EfficientNet reference (`preprocessing.py`,
`_decode_and_center_crop`): cut the centre square first, then resize it. The resampling filter
therefore never sees a pixel outside the crop, which `Image.resize(box=...)` would let it do.
JPEG draft mode, which decodes at a fraction of the size, is never used: it changes the pixels.
Colour profiles are ignored, as in the reference.
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
    mean: tuple[float, float, float]
    """Per channel (R, G, B), for pixel values scaled to 0..1."""
    std: tuple[float, float, float]
    """Per channel (R, G, B), for pixel values scaled to 0..1; above 0."""

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
        if len(self.mean) != 3 or not all(map(math.isfinite, self.mean)):
            raise UsageError(f"preprocessing: mean is {self.mean}; it must be 3 finite numbers")
        if len(self.std) != 3 or not all(0 < value < math.inf for value in self.std):
            raise UsageError(f"preprocessing: std is {self.std}; it must be 3 numbers above 0")


def decode(source: ImageSource) -> Pixels:
    """Read a picture as a viewer shows it: uint8 (H, W, 3), RGB.

    `source` is a path, the bytes of a file, a Pillow image, or a uint8 array, (H, W, 3) RGB or
    (H, W) greyscale. The EXIF orientation is applied, transparency is laid over white, 16-bit
    greyscale is scaled to 8 bit, and of an animation the first frame is taken.

    Raises `UsageError` where the path does not exist, and `ImageError`, naming the file, where it
    cannot be read, is damaged, has floating-point pixels, or has more pixels than twice
    `PIL.Image.MAX_IMAGE_PIXELS` (179 million unless changed). Safe to call from several threads.
    """
    if isinstance(source, np.ndarray):
        return _decode_array(source)
    if isinstance(source, Image.Image):
        with _pillow_errors("Pillow image"):
            return _rgb(source, "Pillow image")
    if isinstance(source, bytes):
        return _decode_stream(io.BytesIO(source), "image bytes")
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        with _open(path) as stream:
            return _decode_stream(stream, repr(str(path)))
    raise ImageError(
        f"{type(source).__name__} is not a picture: "
        "give a path, bytes, a Pillow image, or a uint8 array"
    )


def crop_and_resize(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Cut the centre square and resize it: uint8 (H, W, 3) to uint8 (R, R, 3).

    The side of the square is `crop_fraction` of the short side, rounded down, at least 1; where
    the margins cannot be equal, the top and left ones are the wider. Both as in the reference.

    Raises `ImageError` where `pixels` is not a non-empty uint8 (H, W, 3) array.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ImageError(f"pixels must be uint8 (H, W, 3), not {_describe(pixels)}")
    height, width = pixels.shape[:2]
    # 0.88 of 25 is 22 and not 21.999…: float error must not cost a row.
    side = max(1, math.floor(preprocessing.crop_fraction * min(height, width) + 1e-6))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    square = Image.fromarray(pixels[top : top + side, left : left + side])
    size = (preprocessing.resolution, preprocessing.resolution)
    return np.array(square.resize(size, _FILTERS[preprocessing.interpolation]))


def prepare(source: ImageSource, preprocessing: Preprocessing) -> Pixels:
    """Read a picture and make it the network's input: uint8 (R, R, 3), RGB.

    Raises what `decode` raises.
    """
    return crop_and_resize(decode(source), preprocessing)


def normalize(batch: Pixels, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Scale uint8 (N, H, W, 3) to float32 (N, 3, H, W): (x / 255 - mean) / std.

    Raises `ImageError` where `batch` is not a uint8 (N, H, W, 3) array.
    """
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
        raise ImageError(f"a batch must be uint8 (N, H, W, 3), not {_describe(batch)}")
    mean = np.asarray(preprocessing.mean, np.float32)
    std = np.asarray(preprocessing.std, np.float32)
    scaled = (batch.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _decode_array(array: npt.NDArray[np.generic]) -> Pixels:
    shape = array.shape
    if array.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)):
        raise ImageError(
            "an image array must be uint8, (H, W, 3) RGB or (H, W) greyscale, "
            f"not {_describe(array)}"
        )
    if array.size == 0:
        raise ImageError(f"the image array has no pixels: {_describe(array)}")
    pixels = array.astype(np.uint8)
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels


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


def _decode_stream(stream: BinaryIO, name: str) -> Pixels:
    with _pillow_errors(name):
        if not stream.read(1):
            raise ImageError(f"{name} is empty")
        stream.seek(0)
        with _pillow_warnings_silenced():
            Image.init()
            formats = [each for each in FORMATS if each in Image.OPEN]
            image = Image.open(stream, formats=formats)
        with image:
            return _rgb(image, name)


def _rgb(image: Image.Image, name: str) -> Pixels:
    """Pillow image of any mode to uint8 (H, W, 3)."""
    if image.width == 0 or image.height == 0:
        raise ImageError(f"{name} has no pixels: {image.width} x {image.height}")
    if image.mode == "F":
        raise ImageError(f"{name} has floating-point pixels; save it with 8 or 16 bits a channel")
    image.load()
    image = _upright(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _grey_from_16_bit(image, name)
    elif image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(opaque, image.convert("RGBA"))
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
