"""From a picture file, or what stands for one, to its pixels.

JPEG draft mode, which decodes at a fraction of the size, is never used: it changes the pixels.
Colour profiles are ignored, as in the TensorFlow reference.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from effnet_edge.arguments import path_text
from effnet_edge.errors import ImageError, UsageError
from effnet_edge.pictures.arrays import ARRAY_EXTENSIONS, read_array
from effnet_edge.pictures.containers import JPEG_SIGNATURE, completions, container
from effnet_edge.pictures.tiff_files import check_layout, grey_levels
from effnet_edge.processes import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

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

# Decoding takes up to 19 bytes and 60 ns a pixel (WebP and JPEG 2000): 2 GB and some seconds.
MAX_PIXELS = 110_000_000

_STRIP_PIXELS = 1 << 20

# By channels of the network: the last axes that an array may have, beside just these channels.
_GREY, _RGB = "(H, W) greyscale", "(H, W, 3) RGB"
_ARRAYS_TAKEN: dict[int, dict[tuple[int, ...], str]] = {
    1: {(): _GREY, (1,): "(H, W, 1)", (3,): _RGB},
    3: {(3,): _RGB, (): _GREY},
}

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

_XMP = ("XML:com.adobe.xmp", "xmp")

_warning_filters_in_use = ProcessLock()
_PILLOW = r"PIL\."
_PILLOW_IGNORED = ("ignore", None, Warning, re.compile(_PILLOW), 0)  # as `warnings` writes it


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
    cannot be read, is damaged, has floating-point pixels or other channels, or has more than
    `MAX_PIXELS` pixels (or twice `PIL.Image.MAX_IMAGE_PIXELS`, where that is less). Safe to call
    from several threads.
    """
    if isinstance(source, np.ndarray):
        return _convert_array(source, channels, "the image array")
    if isinstance(source, Image.Image):
        with _pillow_errors("Pillow image"):
            return _convert(source, channels, "Pillow image")
    if isinstance(source, bytes):
        return _decode_stream(io.BytesIO(source), channels, "image bytes")
    if isinstance(source, (str, os.PathLike)):
        path = Path(source if isinstance(source, str) else path_text("the picture", source))
        name = repr(str(path))
        with open_file(path) as stream:
            if path.suffix.lower() in ARRAY_EXTENSIONS:
                return _convert_array(read_array(stream, name), channels, name)
            return _decode_stream(stream, channels, name)
    raise ImageError(
        f"{type(source).__name__} is not a picture: "
        "give a path, bytes, a Pillow image, or a uint8 array"
    )


def _remedy(array: npt.NDArray[np.generic], bands: Container[tuple[int, ...]]) -> str:
    """What makes a picture of an array that is nearly one; empty where nobody knows."""
    if array.ndim in {3, 4} and array.shape[-3:-2] in bands and array.shape[-1:] not in bands:
        return ": its channels come first: move them last with numpy.moveaxis(array, -3, -1)"
    if array.dtype != np.uint8:
        return ": bring its values to 0..255, then array.astype(numpy.uint8)"
    return ""


def _convert_array(array: npt.NDArray[np.generic], channels: int, name: str) -> Pixels:
    """An array as it was given or read, to uint8 (H, W, channels)."""
    bands = array.shape[2:] if array.ndim == 3 else ()
    taken = _ARRAYS_TAKEN.get(channels, {(channels,): f"(H, W, {channels})"})
    if array.dtype != np.uint8 or array.ndim not in {2, 3} or bands not in taken:
        raise ImageError(
            f"{name} must be uint8, {' or '.join(taken.values())}, not {describe(array)}"
            f"{_remedy(array, set(taken))}"
        )
    if array.size == 0:
        raise ImageError(f"{name} has no pixels: {describe(array)}")
    pixels = array.astype(np.uint8)
    if bands in {(), (1,)}:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), channels, axis=2)
    if channels == 1:
        return np.array(Image.fromarray(pixels).convert("L"))[:, :, None]
    return pixels


def describe(array: npt.NDArray[np.generic]) -> str:
    """Tell an array's type and shape, e.g. "uint8 (224, 224, 3)"."""
    return f"{array.dtype} ({', '.join(map(str, array.shape))})"


def open_file(path: Path, what: str = "picture") -> BinaryIO:
    """Open a file of a picture, or of something else; raises as `decode` does."""
    name = repr(str(path))
    try:
        # Looked at before it is opened: opening a named pipe would wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImageError(f"{name} is not a file; give the path of a {what}")
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{name} does not exist; check the path of the {what}") from error
    except ValueError as error:  # a null character
        raise UsageError(f"{name} is no path of a {what}: {error}") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{name} is longer than any path; check it") from error
        raise ImageError(f"{name} cannot be opened: {error.strerror}") from error


def _decode_stream(stream: BinaryIO, channels: int, name: str) -> Pixels:
    with _pillow_errors(name):
        if not stream.read(1):
            raise ImageError(f"{name} is empty")
        stream.seek(0)
        opened = container(stream, name)
        try:
            return _decode_container(opened, channels, name)
        except OSError:
            opened.seek(0)
            if (whole := _whole_without_its_end(opened, channels, name)) is not None:
                return whole
            raise


def _decode_container(stream: BinaryIO, channels: int, name: str) -> Pixels:
    with _pillow_warnings_silenced():
        Image.init()
        formats = [each for each in FORMATS if each in Image.OPEN]
        image = Image.open(stream, formats=formats)
    with image:
        return _convert(image, channels, name)


def _whole_without_its_end(stream: BinaryIO, channels: int, name: str) -> Pixels | None:
    """Decode a JPEG that lacks nothing but its end marker; None for any other file."""
    if (start := stream.read(len(JPEG_SIGNATURE))) != JPEG_SIGNATURE:
        return None
    first = None
    for completed in completions(start + stream.read()):
        pixels = _decode_container(io.BytesIO(completed), channels, name)
        if first is not None and not np.array_equal(first, pixels):
            return None
        first = pixels
    return first


def _convert(image: Image.Image, channels: int, name: str) -> Pixels:
    """Pillow image of any mode to uint8 (H, W, channels)."""
    if image.width == 0 or image.height == 0:
        raise ImageError(f"{name} has no pixels: {image.width} x {image.height}")
    if image.mode == "LAB":
        raise ImageError(f"{name} has CIE L*a*b* colours; save it in RGB")
    if image.mode == "F":
        raise ImageError(f"{name} has floating-point pixels; save it with 8 or 16 bits a channel")
    if channels not in {1, 3} and _BANDS.get(image.mode) != channels:
        raise ImageError(
            f"{name} is a picture of mode {image.mode}, and the network takes {channels} channels: "
            f"save all of them in a .npy file, uint8 (H, W, {channels})"
        )
    _check_size(image.width * image.height, name)
    check_layout(image, name)
    levels = grey_levels(image)
    with _without_xmp(image):
        image.load()
        image = _upright(image)
    rows = max(1, _STRIP_PIXELS // image.width)
    if rows >= image.height:
        return np.array(_convert_strip(image, channels, levels, name))
    pixels = np.empty((image.height, image.width, channels), np.uint8)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels[top : top + rows] = _convert_strip(strip, channels, levels, name)
    return pixels


def _check_size(pixels: int, name: str) -> None:
    if pixels > MAX_PIXELS:
        raise ImageError(
            f"{name} is too large: {pixels / 1e6:.0f} million pixels; at most "
            f"{MAX_PIXELS // 10**6} million are read: make it smaller first"
        )


def _convert_strip(image: Image.Image, channels: int, levels: tuple[int, int], name: str) -> Pixels:
    """Some rows of an upright picture, by themselves: the memory of a conversion stays small."""
    if image.mode == "RGB" and channels == 3 and not image.has_transparency_data:
        return np.asarray(image)
    if channels not in {1, 3}:
        return np.asarray(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _grey_from_16_bit(image, levels, name)
    elif image.has_transparency_data or image.mode == "La":
        unmultiplied = image.convert("LA") if image.mode == "La" else image
        opaque = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(opaque, unmultiplied.convert("RGBA"))
    if channels == 1:
        return np.asarray(image.convert("L"))[:, :, None]
    return np.asarray(image.convert("RGB"))


@contextlib.contextmanager
def _without_xmp(image: Image.Image) -> Iterator[None]:
    """Hide XMP, to whose orientation Pillow falls back; viewers follow EXIF's alone."""
    hidden = {key: image.info.pop(key) for key in _XMP if key in image.info}
    try:
        yield
    finally:
        image.info.update(hidden)


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


def _grey_from_16_bit(image: Image.Image, levels: tuple[int, int], name: str) -> Image.Image:
    # Pillow's own conversion clips at 255. Mode "I" has 32 bits, but what it carries in files
    # is 16-bit greyscale; there is no telling what white is where a value exceeds that.
    values, (black, white) = np.asarray(image).astype(np.int64), levels
    if values.min() < 0 or values.max() > max(levels):
        raise ImageError(f"{name} has 32-bit pixels; save it with 8 or 16 bits a channel")
    span = abs(white - black)
    grey = (255 * np.abs(values - black) + span // 2) // span
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey.astype(np.uint8))


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
    `warnings.catch_warnings` would take away what another thread adds meanwhile.
    """
    with _warning_filters_in_use:
        was_there = _PILLOW_IGNORED in warnings.filters
        warnings.filterwarnings("ignore", module=_PILLOW)
        try:
            yield
        finally:
            if not was_there and _PILLOW_IGNORED in warnings.filters:
                warnings.filters.remove(_PILLOW_IGNORED)  # type: ignore[attr-defined]
