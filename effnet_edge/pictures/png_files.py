"""PNG files as Pillow is to read them: with the chunks that decoding needs, and what it misreads.

Pillow refuses a picture for more than 1 MiB of compressed text or colour profile, compares the
transparent grey of 2 and 4 bits with values that it has scaled to 8, and takes the picture for
programs that know no animations where the animation has another first frame.
PNG specification, third edition: https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# 4.8: what decoding the first frame needs, and the orientation.
_NEEDED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"})
_GREY, _RGB = 0, 2  # 11.2.1, colour types
_HEADER_BYTES, _FRAME_BYTES = 13, 26  # of IHDR and fcTL
_SIZE = struct.Struct(">II")
_FRAME = struct.Struct(">IIII")  # 11.3.6.2: width, height, x and y, behind a number of 4 bytes


@dataclass(frozen=True)
class _Chunk:
    """Where a chunk begins, and how many bytes of data the file has of it; its kind if it tells."""

    kind: bytes
    at: int
    length: int


def readable_png(stream: BinaryIO, name: str) -> BinaryIO:
    """Copy what shows the picture, or the first frame of an animation.

    What is damaged stays as it is, for Pillow to tell.

    Raises:
        ImageError: a checksum is wrong of what has to be changed; a transparent colour of 16 bits,
            which Pillow has no room for; a first frame that is a part of the picture.
    """
    chunks = list(_chunks(stream))
    header = _header(stream, chunks)
    frame = _first_frame(chunks)
    kept = io.BytesIO()
    kept.write(PNG_SIGNATURE)
    for chunk in _shown(chunks, frame):
        if chunk.kind == b"tRNS":
            kept.write(_transparency(_checked(stream, chunk, name), header, name))
        elif chunk.kind == b"fcTL":
            _check_frame(_checked(stream, chunk, name), header, name)
        elif chunk.kind == b"fdAT":
            kept.write(_written(b"IDAT", _checked(stream, chunk, name)[4:]))
        else:
            stream.seek(chunk.at)
            kept.write(stream.read(8 + chunk.length + 4))
    kept.seek(0)
    return kept


def _chunks(stream: BinaryIO) -> Iterator[_Chunk]:
    end = stream.seek(0, io.SEEK_END)
    at = len(PNG_SIGNATURE)
    while at < end:
        stream.seek(at)
        head = stream.read(8)
        length, kind = struct.unpack(">I4s", head.ljust(8, b"\0"))
        yield _Chunk(kind if kind.isalpha() else b"", at, min(length, end - at - 12))
        at += 12 + length


def _data(stream: BinaryIO, chunk: _Chunk) -> bytes:
    stream.seek(chunk.at + 8)
    return stream.read(max(chunk.length, 0))


def _checked(stream: BinaryIO, chunk: _Chunk, name: str) -> bytes:
    data = _data(stream, chunk)
    if stream.read(4) != _written(chunk.kind, data)[-4:]:
        raise ImageError(f"{name} is damaged: a checksum in it is wrong")
    return data


def _header(stream: BinaryIO, chunks: list[_Chunk]) -> bytes:
    """What IHDR says; zeros where it is not there."""
    first = next(iter(chunks), None)
    data = _data(stream, first) if first is not None and first.kind == b"IHDR" else b""
    return data.ljust(_HEADER_BYTES, b"\0")


def _first_frame(chunks: list[_Chunk]) -> int | None:
    """Where the first frame of an animation begins whose default image is no frame."""
    kinds = [chunk.kind for chunk in chunks]
    if b"acTL" not in kinds or b"IDAT" not in kinds or b"fcTL" not in kinds:
        return None
    first = kinds.index(b"fcTL")
    return first if first > kinds.index(b"IDAT") else None


def _shown(chunks: list[_Chunk], frame: int | None) -> Iterable[_Chunk]:
    if frame is None:
        return [chunk for chunk in chunks if chunk.kind in _NEEDED or not chunk.kind]
    before = [each for each in chunks[:frame] if each.kind in _NEEDED - {b"IDAT", b"IEND"}]
    behind = [each.kind for each in chunks[frame + 1 :]]
    end = behind.index(b"fcTL") if b"fcTL" in behind else len(behind)
    data = [each for each in chunks[frame + 1 :][:end] if each.kind in (b"fdAT", b"")]
    return [*before, chunks[frame], *data, *(each for each in chunks if each.kind == b"IEND")]


def _check_frame(control: bytes, header: bytes, name: str) -> None:
    width, height, left, top = _FRAME.unpack(control.ljust(_FRAME_BYTES, b"\0")[4:20])
    if (width, height, left, top) != (*_SIZE.unpack(header[:8]), 0, 0):
        raise ImageError(
            f"{name} is an animation whose first frame is a part of the picture, and not the "
            "picture that programs without animations show: save the one that is meant"
        )


def _transparency(told: bytes, header: bytes, name: str) -> bytes:
    depth, colours = header[8], header[9]
    if colours == _RGB and depth == 16:
        raise ImageError(
            f"{name} has 16 bits a channel and a transparent colour: save it with an alpha channel"
        )
    if colours == _GREY and depth in (2, 4) and len(told) == 2:
        most = (1 << depth) - 1
        told = ((int.from_bytes(told, "big") & most) * 255 // most).to_bytes(2, "big")
    return _written(b"tRNS", told)


def _written(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
