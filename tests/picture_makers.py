"""Pictures to test with: photo-like pixels, and files of them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from effnet_edge.errors import EffnetEdgeError


def photo_like(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with some grain: something for the filter to do, and for JPEG to keep."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray | Image.Image, image_format: str, **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def one_line(error: pytest.ExceptionInfo[EffnetEdgeError]) -> str:
    text = str(error.value)
    assert text.strip()
    assert len(text.splitlines()) == 1
    return text


def png_16_bit(values: np.ndarray) -> bytes:
    """A 16-bit greyscale PNG, written by hand: independent of what Pillow calls the mode."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff_16_bit(values: np.ndarray, order: str) -> bytes:
    """A 16-bit greyscale TIFF of either byte order, uncompressed, written by hand."""
    height, width = values.shape
    body = values.astype(f"{order}u2").tobytes()
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8 + 2 + 12 * 8 + 4),
        (278, 4, height),
        (279, 4, len(body)),
    ]
    content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    content += struct.pack(f"{order}H", len(tags))
    for tag, kind, value in tags:
        content += struct.pack(f"{order}HHI", tag, kind, 1)
        content += struct.pack(f"{order}Hxx" if kind == 3 else f"{order}I", value)
    return content + struct.pack(f"{order}I", 0) + body


SIXTEEN_BIT = np.array([[0, 127, 129, 255, 256], [4660, 32768, 65407, 65534, 65535]], np.uint16)


def folder_of_noise(folder: Path, count: int, side: int) -> Path:
    """Make a folder of so many square pictures, named in their order."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        pixels = random.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return folder
