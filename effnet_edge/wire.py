"""Protocol buffers' wire format, read without their library: ONNX models, TensorFlow's indices.

https://protobuf.dev/programming-guides/encoding/. Nothing is copied and nothing is allocated by
what a message claims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
_VARINT_BYTES = 10


class WireError(ValueError):
    """The bytes are no protocol buffer; the text says why."""


def varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """A number of 7 bits a byte, lowest first, and the position after it; raises `WireError`."""
    number = 0
    for index, byte in enumerate(data[position : position + _VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number, position + index + 1
    raise WireError("a number is cut off")


def fields(message: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The number and the value of each field, in order: an integer, or a view of its bytes.

    Raises:
        WireError: it is no message, or cut off.
    """
    view = memoryview(message)
    position = 0
    while position < len(view):
        tag, position = varint(view, position)
        kind = tag & 7
        if kind == VARINT:
            number, position = varint(view, position)
            yield tag >> 3, number
            continue
        if kind == BYTES:
            size, position = varint(view, position)
        elif kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
        else:
            raise WireError("an entry is no protocol buffer")
        value = view[position : position + size]
        if len(value) != size:
            raise WireError("an entry is cut off")
        position += size
        yield tag >> 3, value if kind == BYTES else int.from_bytes(value, "little")
