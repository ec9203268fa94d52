"""Tensor bundles as TensorFlow writes them, with no more than one block and one data file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import google_crc32c
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

FLOAT32 = 1
MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def masked_checksum(data: bytes) -> bytes:
    value = google_crc32c.value(data)
    return (((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def message(*fields: tuple[int, int | bytes]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    out = b"".join(
        varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in pairs
    )
    out += bytes(4) + (1).to_bytes(4, "little")
    return out + b"\0" + masked_checksum(out + b"\0")


def write_bundle(prefix: Path, tensors: dict[str, np.ndarray]) -> Path:
    """`prefix`.index and its data file; the path of the former."""
    data = bytearray()
    entries = [(b"", message((1, 1), (3, message((1, 1)))))]
    for name, values in sorted(tensors.items()):
        content = np.ascontiguousarray(values, "<f4").tobytes()
        shape = b"".join(message((2, message((1, size)))) for size in values.shape)
        fields = message((1, FLOAT32), (2, shape), (4, len(data)), (5, len(content)))
        checksum = varint(6 << 3 | 5) + masked_checksum(content)
        entries.append((name.encode(), fields + checksum))
        data += content
    entries_block, filter_block = block(entries), block([])
    handle = varint(0) + varint(len(entries_block) - 5)
    index_block = block([(b"\xff", handle)])
    positions = (len(entries_block), len(entries_block) + len(filter_block))
    footer = varint(positions[0]) + varint(len(filter_block) - 5)
    footer += varint(positions[1]) + varint(len(index_block) - 5)
    index = prefix.with_name(f"{prefix.name}.index")
    index.write_bytes(entries_block + filter_block + index_block + footer.ljust(40, b"\0") + MAGIC)
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    return index
