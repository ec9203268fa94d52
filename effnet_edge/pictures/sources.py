"""What a program gives as pictures, one or several, made the network's input.

`decode` reads one picture of few kinds. Here are the other kinds that a program has them in, and
what holds several.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from PIL import Image

from effnet_edge.arguments import path_text
from effnet_edge.errors import EffnetEdgeError, ImageError, UsageError, first_line
from effnet_edge.pictures.ahead import in_order
from effnet_edge.pictures.folders import matches
from effnet_edge.pictures.image import ImageSource, picture_extensions, prepare
from effnet_edge.pictures.sets import ImageSet
from effnet_edge.pictures.tensors import HostArray, host_array

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet_edge.pictures.image import Pixels, Preprocessing


@runtime_checkable
class BinaryFile(Protocol):
    """What is open for reading bytes: a file, a BytesIO, a response of a server."""

    def read(self) -> bytes:
        """Give what is left of it."""
        ...


@runtime_checkable
class Tensor(Protocol):
    """An array of another library, such as PyTorch, that has DLPack: of the CPU or a GPU."""

    def __dlpack_device__(self) -> tuple[int, int]: ...


Picture: TypeAlias = ImageSource | bytearray | memoryview | BinaryFile | Tensor
"""One picture; a path may also be a folder or a pattern, an array (N, H, W, C) frames."""

_BGR_TO_RGB = {3: [2, 1, 0], 4: [2, 1, 0, 3]}


@dataclass(frozen=True)
class ReadPicture:
    """One of the pictures given: the network's input uint8 (H, W, C), or why there is none."""

    name: str
    """The path, or "picture 1" of those without one."""
    pixels: Pixels | None
    error: EffnetEdgeError | None


def picture_paths(place: str | os.PathLike[str], channels: int = 3) -> list[Path]:
    """The files of pictures in a folder, or that match a pattern such as "in/**/*.jpg", sorted.

    What is hidden, or has no extension of a picture for a network of so many `channels`, is left
    out.

    Raises:
        UsageError: there is none.
    """
    if _is_folder(place):
        found = ImageSet.from_folder(place, channels=channels).paths
        return [each for each in found if isinstance(each, Path)]
    extensions = picture_extensions(channels)
    paths = [
        each for each in matches(place) if each.suffix.lower() in extensions and each.is_file()
    ]
    if not paths:
        raise UsageError(
            f"{os.fspath(place)!r} matches no pictures; looked for {', '.join(sorted(extensions))}"
        )
    return paths


def matching_paths(pattern: str | os.PathLike[str]) -> list[Path]:
    """What matches a pattern such as "in/**/*.jpg", or is there under that very name, sorted."""
    if os.path.lexists(pattern):
        return [Path(pattern)]
    return matches(pattern)


def holds_several(place: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a folder, or a pattern; a file's name may look like a pattern."""
    if _is_folder(place):
        return True
    text = os.fspath(place)
    return glob.has_magic(text) and "\0" not in text and not os.path.lexists(text)


def _is_folder(place: str | os.PathLike[str]) -> bool:
    # Path.is_dir raises on a name that is too long.
    return os.path.isdir(place)  # noqa: PTH112


def pictures_in(images: object, channels: int = 3) -> Iterable[object] | None:
    """The pictures in what holds several; None where `images` is one picture.

    Several are in a folder, a pattern, an array (N, H, W, C), and whatever else can be iterated.

    Raises:
        UsageError: a folder or a pattern has no pictures, or a path is no text.
    """
    if isinstance(images, str | os.PathLike):
        place = images if isinstance(images, str) else path_text("the picture", images)
        return picture_paths(place, channels) if holds_several(place) else None
    array = host_array(images)
    if array is not None:
        return array if array.ndim == 4 else None
    if isinstance(images, bytes | bytearray | memoryview | Image.Image | BinaryFile | Tensor):
        return None
    return images if isinstance(images, Iterable) else None


def decodable(picture: object, channels: int = 3, *, bgr: bool = False) -> ImageSource:
    """One picture of any kind as one that `decode` takes, or refuses.

    Files are read from their start. Of arrays for greyscale and RGB networks, RGBA is laid over
    white, as it is of files, and (H, W, 1) is greyscale.

    Args:
        bgr: arrays have their channels in the order of OpenCV, BGR or BGRA.

    Raises:
        UsageError: an array that its library does not hand out.
        ImageError: a file that cannot be read, or is open as text.
    """
    if isinstance(picture, bytearray | memoryview):
        return bytes(picture)
    array = host_array(picture)
    if array is not None:
        return _in_rgb_order(array, channels, bgr=bgr)
    if isinstance(picture, BinaryFile) and not isinstance(picture, os.PathLike | Image.Image):
        return _content(picture)
    return cast("ImageSource", picture)


def read_pictures(
    images: object, preprocessing: Preprocessing, *, bgr: bool = False
) -> tuple[Iterator[ReadPicture], bool]:
    """The network's inputs for all pictures given, in order; whether several.

    Files that are all named at once are read a few ahead, on other threads. Whatever else is given
    is read in its turn, by who asks for it: a generator may be about to write over its picture.

    Raises:
        UsageError: a folder or a pattern has no pictures, or `bgr` where the network's channels
            are neither grey nor RGB.
    """
    channels = preprocessing.channels
    if bgr and channels not in {1, 3}:
        raise UsageError(f"bgr: the network takes {channels} channels, which have no such order")
    several = pictures_in(images, channels)
    given = [images] if several is None else several
    numbered = enumerate(given, start=1)
    read = partial(_read_numbered, preprocessing=preprocessing, bgr=bgr)
    reading = in_order(read, numbered) if _are_files(given) else map(read, numbered)
    return reading, several is not None


def _are_files(given: Iterable[object]) -> bool:
    """Whether it is a list of files by name or content, two or more."""
    return (
        isinstance(given, list | tuple)
        and len(given) > 1
        and all(isinstance(each, str | os.PathLike | bytes) for each in given)
    )


def _read_numbered(
    numbered: tuple[int, object], preprocessing: Preprocessing, *, bgr: bool
) -> ReadPicture:
    number, picture = numbered
    return read_picture(picture, preprocessing, number, bgr=bgr)


def read_picture(
    picture: object, preprocessing: Preprocessing, number: int = 1, *, bgr: bool = False
) -> ReadPicture:
    """The network's input for one picture of any kind, or why there is none.

    Args:
        number: stands for the name of a picture that has none.
        bgr: as of `read_pictures`.
    """
    name = _name(picture) or f"picture {number}"
    try:
        source = decodable(picture, preprocessing.channels, bgr=bgr)
        return ReadPicture(name, prepare(source, preprocessing), None)
    except (ImageError, UsageError) as error:
        if isinstance(picture, str | os.PathLike):  # named in the text already
            return ReadPicture(name, None, error)
        named = type(error)(f"{name}: {error}")
        named.__cause__ = error
        return ReadPicture(name, None, named)


def _name(picture: object) -> str | None:
    """Where a picture is from, if it tells."""
    name: object = None
    if isinstance(picture, str | os.PathLike):
        with contextlib.suppress(TypeError):  # decoding tells what is wrong with it
            name = os.fspath(picture)
    elif isinstance(picture, BinaryFile):
        name = getattr(picture, "name", None)
    return name if isinstance(name, str) else None


def _in_rgb_order(array: HostArray, channels: int, *, bgr: bool) -> ImageSource:
    if array.dtype != np.uint8 or array.ndim != 3 or channels not in {1, 3}:
        return array
    bands = array.shape[2]
    if bgr and bands in _BGR_TO_RGB:
        array = array[:, :, _BGR_TO_RGB[bands]]
    if bands == 4 and array.size:
        return Image.fromarray(np.ascontiguousarray(array))
    return array[:, :, 0] if bands == 1 else array


def _content(file: BinaryFile) -> bytes:
    """All of an open file; one that has been written just now is rewound, as Pillow does."""
    rewindable: Any = file
    try:
        with contextlib.suppress(AttributeError, OSError):
            rewindable.seek(0)
        content: object = file.read()
    except Exception as error:  # of any library's file
        raise ImageError(f"the file cannot be read: {first_line(error)}") from error
    if isinstance(content, bytearray | memoryview):
        return bytes(content)
    if not isinstance(content, bytes):
        raise ImageError(f"the file gives {type(content).__name__} and no bytes: open it with 'rb'")
    return content
