"""TensorFlow's checkpoints ("tensor bundles") read without TensorFlow.

A bundle is `NAME.index`, a table of LevelDB's format whose values are protocol buffers, and
`NAME.data-00000-of-00001` with the bytes of the tensors. Formats:
https://github.com/google/leveldb/blob/main/doc/table_format.md,
https://protobuf.dev/programming-guides/encoding/ and
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/tensor_bundle.proto.
All sizes in a file are checked against the file before anything is read or allocated, no part of a
file is read twice, and every checksum is compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import BackendError, CheckpointError
from effnet_edge.extras import install_hint
from effnet_edge.wire import WireError, fields, varint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
"""The last bytes of a table."""

_FOOTER_BYTES = 48
# The largest variant's, with its optimizer's variables, has less than 2 MB.
_LARGEST_INDEX = 64 << 20
_LARGEST_ENTRY = 1 << 16
_MOST_NAME_BYTES = 64 << 20
_LONGEST_NAME = 4096
_MOST_DIMENSIONS = 8
_BLOCK_TRAILER_BYTES = 5  # the compression, and a checksum of the block and of it
_UNCOMPRESSED = 0
_LITTLE_ENDIAN = 0
# https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/framework/types.proto.
# NumPy has no bfloat16: it is the upper half of a float32.
_BFLOAT16 = 14
_DTYPES = {1: "<f4", 2: "<f8", 19: "<f2", _BFLOAT16: "<u2"}


class _DamagedError(Exception):
    """The bytes are no table, or no bundle's; the text says where."""


@dataclass(frozen=True)
class _Entry:
    """Where a tensor's bytes are; a `BundleEntryProto`."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    is_sliced: bool


def is_bundle_index(data: bytes) -> bool:
    """Whether these are the bytes of a table, as `NAME.index` is one."""
    return data.endswith(MAGIC)


def read_bundle(
    index: Path, is_wanted: Callable[[str], bool]
) -> tuple[dict[str, npt.NDArray[np.floating]], list[Path]]:
    """The floating-point tensors of a bundle by name, and the files that were read for them.

    Args:
        index: the bundle's `.index` file.
        is_wanted: which names to read; an optimizer's variables are two thirds of a checkpoint.

    Raises:
        CheckpointError: a file is missing, truncated or damaged, or written as TensorFlow's own
            releases do not.
        BackendError: google-crc32c is not installed.
    """
    _require_checksums(index)
    try:
        if index.stat().st_size > _LARGEST_INDEX:
            raise _DamagedError("it is larger than an index is")
        entries, shards = _read_index(index.read_bytes())
        files = [_shard_path(index, number, shards) for number in range(shards)]
        wanted = {
            name: entry
            for name, entry in entries.items()
            if is_wanted(name) and entry.dtype in _DTYPES
        }
        if sum(each.size for each in wanted.values()) > sum(each.stat().st_size for each in files):
            raise _DamagedError("its tensors are larger than its data files")
        tensors = {name: _read_tensor(name, entry, files) for name, entry in wanted.items()}
    except (_DamagedError, WireError) as error:
        raise CheckpointError(
            f"{index.name} is truncated or damaged: copy the checkpoint again ({error})"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return tensors, [index, *files]


def _require_checksums(index: Path) -> None:
    try:
        import google_crc32c  # noqa: F401
    except ModuleNotFoundError as error:
        raise BackendError(
            f"{index.name} is a TensorFlow checkpoint, and reading it needs google-crc32c: "
            + install_hint("export")
        ) from error


def _shard_path(index: Path, number: int, shards: int) -> Path:
    path = index.with_name(f"{index.name.removesuffix('.index')}.data-{number:05d}-of-{shards:05d}")
    if not path.is_file():
        raise CheckpointError(
            f"{index.name}: {path.name} is not beside it, which holds the tensors: "
            "copy all files of the checkpoint"
        )
    return path


def _read_index(data: bytes) -> tuple[dict[str, _Entry], int]:
    """Entries by the tensors' names, and how many data files there are."""
    entries: dict[str, _Entry] = {}
    shards = 0
    for key, value in _table(data):
        if not key:
            header = _fields(value)
            shards = _integer(header, 1)
            if _integer(header, 2) != _LITTLE_ENDIAN:
                raise _DamagedError("its tensors are big-endian")
            continue
        try:
            entries[key.decode()] = _parse_entry(value)
        except UnicodeDecodeError as error:
            raise _DamagedError("a tensor's name is no text") from error
    if not 0 < shards < 100_000:
        raise _DamagedError(f"{shards} data files")
    return entries, shards


def _parse_entry(message: bytes) -> _Entry:
    if len(message) > _LARGEST_ENTRY:
        raise _DamagedError("an entry is larger than one is")
    told = _fields(message)
    sizes = [
        _integer(_fields(dimension), 1)
        for shape in told.get(2, [])
        for dimension in _fields(_as_message(shape)).get(2, [])
        if isinstance(dimension, memoryview)
    ]
    if len(sizes) > _MOST_DIMENSIONS:
        raise _DamagedError(f"a tensor has {len(sizes)} dimensions")
    return _Entry(
        dtype=_integer(told, 1),
        shape=tuple(sizes),
        shard=_integer(told, 3),
        offset=_integer(told, 4),
        size=_integer(told, 5),
        checksum=_integer(told, 6),
        is_sliced=7 in told,
    )


def _read_tensor(name: str, entry: _Entry, files: list[Path]) -> npt.NDArray[np.floating]:
    if entry.is_sliced:
        raise CheckpointError(f"tensor {name} was saved in slices: save it from one device")
    dtype = np.dtype(_DTYPES[entry.dtype])
    if entry.shard >= len(files) or entry.size != math.prod(entry.shape) * dtype.itemsize:
        raise _DamagedError(f"tensor {name} has an impossible size")
    path = files[entry.shard]
    if entry.offset + entry.size > path.stat().st_size:
        raise _DamagedError(f"{path.name} ends before tensor {name}")
    with path.open("rb") as file:
        file.seek(entry.offset)
        data = file.read(entry.size)
    if _masked_checksum(data) != entry.checksum:
        raise _DamagedError(f"the checksum of tensor {name} is wrong")
    values = np.frombuffer(data, dtype).reshape(entry.shape)
    if entry.dtype == _BFLOAT16:
        return (values.astype("<u4") << 16).view("<f4")
    return values


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table."""
    if len(data) < _FOOTER_BYTES or not data.endswith(MAGIC):
        raise _DamagedError("it is no TensorFlow index")
    footer = data[-_FOOTER_BYTES:]
    _, position = _block_handle(footer, 0)  # the index of filters, which bundles do not have
    blocks, _ = _block_handle(footer, position)
    names, done = 0, 0
    for _, value in _block(data, *blocks):
        (offset, size), _ = _block_handle(value, 0)
        if offset < done:
            raise _DamagedError("two blocks overlap")
        done = offset + size
        for key, entry in _block(data, offset, size):
            names += len(key)
            if names > _MOST_NAME_BYTES:
                raise _DamagedError("its names are longer than names are")
            yield key, entry


def _block_handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """A block's offset and size, and the position after them."""
    offset, position = varint(data, position)
    size, position = varint(data, position)
    return (offset, size), position


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; a key is given by what it shares with the one before."""
    end = offset + size
    if size < 4 or end + _BLOCK_TRAILER_BYTES > len(data):
        raise _DamagedError("a block is outside of the file")
    if _masked_checksum(data[offset : end + 1]) != int.from_bytes(
        data[end + 1 : end + 5], "little"
    ):
        raise _DamagedError("the checksum of a block is wrong")
    if data[end] != _UNCOMPRESSED:
        raise _DamagedError("its index is compressed, as TensorFlow does not write it")
    restarts = int.from_bytes(data[end - 4 : end], "little")
    end -= 4 * (restarts + 1)
    if end < offset:
        raise _DamagedError("a block has no room for its entries")
    key, position = b"", offset
    while position < end:
        shared, position = varint(data, position)
        added, position = varint(data, position)
        length, position = varint(data, position)
        if shared > len(key) or position + added + length > end:
            raise _DamagedError("an entry is outside of its block")
        if shared + added > _LONGEST_NAME:
            raise _DamagedError("a name is longer than one is")
        key = key[:shared] + data[position : position + added]
        position += added
        yield key, data[position : position + length]
        position += length


def _fields(message: bytes | memoryview) -> dict[int, list[int | memoryview]]:
    """A protocol buffer's values by field number."""
    found: dict[int, list[int | memoryview]] = {}
    for number, value in fields(message):
        found.setdefault(number, []).append(value)
    return found


def _integer(fields: dict[int, list[int | memoryview]], number: int) -> int:
    """The last value of a field, as protocol buffers have it; 0 where it is absent."""
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise _DamagedError("a number is no number")
    return value


def _as_message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _DamagedError("a shape is no shape")
    return value


def _masked_checksum(data: bytes) -> int:
    """CRC-32C, rotated and shifted as LevelDB stores it."""
    import google_crc32c

    checksum: int = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
