"""Pictures in NumPy's own files, for channels that picture formats do not hold.

Nothing is unpickled. The format is specified in NumPy's reference, `numpy.lib.format`.
"""

from __future__ import annotations

import zipfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import numpy as np

from effnet_edge.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

ARRAY_EXTENSIONS = frozenset({".npy", ".npz"})

MAX_ARRAY_BYTES = 512 << 20
MAX_ARRAYS_BYTES = 1 << 30


def read_arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Every array of an `.npz` file by its name.

    Raises:
        ImageError: it is none, damaged, or its arrays have more than `MAX_ARRAYS_BYTES` together
            and more than the file.
    """
    with _told(str(path)), zipfile.ZipFile(path) as archive:
        left = max(MAX_ARRAYS_BYTES, path.stat().st_size)
        arrays = {}
        for name in archive.namelist():
            with archive.open(name) as member:
                array = _array(member, f"{path}: {name}", left)
            left -= array.nbytes
            arrays[name.removesuffix(".npy")] = array
        return arrays


def read_array(stream: IO[bytes], name: str) -> npt.NDArray[np.generic]:
    """The array in an open `.npy` file, or the only one in an `.npz` file.

    Raises:
        ImageError: the file is neither, damaged, holds Python objects, several arrays, or more
            than `MAX_ARRAY_BYTES`.
    """
    with _told(name):
        if stream.read(2) == b"PK":
            return _only_array(stream, name)
        stream.seek(0)
        return _array(stream, name, MAX_ARRAY_BYTES)


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        # A damaged header lets nearly anything out: SyntaxError, struct.error, BadZipFile, …
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(f"{name} is no array of NumPy's, or damaged: {reason}") from error


def _only_array(stream: IO[bytes], name: str) -> npt.NDArray[np.generic]:
    with zipfile.ZipFile(stream) as archive:
        members = archive.namelist()
        if len(members) != 1:
            raise ImageError(f"{name} holds {len(members)} arrays; save a picture in each file")
        with archive.open(members[0]) as member:
            return _array(member, name, MAX_ARRAY_BYTES)


def _array(stream: IO[bytes], name: str, most: int) -> npt.NDArray[np.generic]:
    """Header first: what it promises decides whether the rest is read at all."""
    version = np.lib.format.read_magic(stream)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(stream)
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size > most:
        raise ImageError(f"{name} is too large: {dtype} {shape}; at most {most >> 20} MiB are read")
    stream.seek(0)
    array: npt.NDArray[np.generic] = np.lib.format.read_array(stream, allow_pickle=False)
    return array
