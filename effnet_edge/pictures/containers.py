"""What is looked at in a picture file before its pixels are decoded.

The decoders are Pillow's. Some of their limits refuse sound pictures, for metadata that decoding
never needs; others are missing, so that a small file takes minutes. Both are mended here, on the
file's own structure, before anything is decompressed.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.errors import ImageError
from effnet_edge.pictures.png_files import PNG_SIGNATURE, readable_png

if TYPE_CHECKING:
    from typing import BinaryIO

JPEG_SIGNATURE = b"\xff\xd8\xff"

# Brands of an ISO base media file (ISO/IEC 23008-12, annex B): HEVC pictures, and those of AV1.
_HEVC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AV1_BRANDS = frozenset({b"avif", b"avis"})

# Markers of ITU-T T.81, table B.1.
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_SEQUENTIAL_FRAMES = frozenset({0xC0, 0xC1})
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
# Of the bytes 0xFF that may fill the space before a marker only the last counts: a pattern that
# begins with a single byte is found many times as fast.
_NEXT_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")

# A progressive JPEG is passed over once a scan, 1 to 2 ns a pixel each: ten scans are usual.
MAX_SCANNED_PIXELS = 3_000_000_000

# The canvas of an animated WebP takes 16 bytes and 200 ns a pixel, other pictures a third of that.
MAX_ANIMATED_PIXELS = 30_000_000
_WEBP_ANIMATION = 0x02  # https://developers.google.com/speed/webp/docs/riff_container


@dataclass(frozen=True)
class JpegStructure:
    """What the markers of a JPEG tell.

    Attributes:
        pixels: width times height, 0 where there is no frame.
        sequential: whether each part of the picture is coded once (baseline), not in refinements.
        scans: how many times the picture, or some of its components, is passed over.
        ended: whether the end marker is there.
    """

    pixels: int
    sequential: bool
    scans: int
    ended: bool


def container(stream: BinaryIO, name: str) -> BinaryIO:
    """Give the file as Pillow is to read it, from its start.

    Raises:
        ImageError: a format that is recognized and not read, a JPEG of so many scans that it would
            take minutes, an animation that is too large, or what `readable_png` refuses.
    """
    head = stream.read(64)
    stream.seek(0)
    if head.startswith(PNG_SIGNATURE):
        return readable_png(stream, name)
    if head.startswith(JPEG_SIGNATURE):
        _check_scans(jpeg_structure(stream.read()), name)
        stream.seek(0)
    elif head.startswith(b"RIFF") and head[8:16] == b"WEBPVP8X":
        _check_canvas(head, name)
    elif _is_heic(head):
        raise ImageError(f"{name} is a HEIC picture, which is not read: save it as JPEG or PNG")
    return stream


def _check_canvas(head: bytes, name: str) -> None:
    """Of an animated WebP: the decoder fills all of it, however small the frames are."""
    pixels = math.prod(1 + int.from_bytes(head[at : at + 3], "little") for at in (24, 27))
    if head[20] & _WEBP_ANIMATION and pixels > MAX_ANIMATED_PIXELS:
        raise ImageError(
            f"{name} is too large: an animation of {pixels / 1e6:.0f} million pixels; at most "
            f"{MAX_ANIMATED_PIXELS // 10**6} million are read: make it smaller first"
        )


def _is_heic(head: bytes) -> bool:
    if head[4:8] != b"ftyp":
        return False
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, size, 4))}
    return bool(brands & _HEVC_BRANDS) and not brands & _AV1_BRANDS


def jpeg_structure(data: bytes) -> JpegStructure:
    """Read the markers of a JPEG file; what is damaged counts as the end."""
    pixels, sequential, scans, at = 0, False, 0, 2
    while (found := _NEXT_MARKER.search(data, at)) is not None:
        marker, at = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            return JpegStructure(pixels, sequential, scans, ended=True)
        if marker in _WITHOUT_LENGTH:
            continue
        if marker in _FRAMES and not pixels:
            height, width = struct.unpack(">HH", data[at + 3 : at + 7].ljust(4, b"\0"))
            pixels, sequential = height * width, marker in _SEQUENTIAL_FRAMES
        scans += marker == _START_OF_SCAN
        at += int.from_bytes(data[at : at + 2], "big")
    return JpegStructure(pixels, sequential, scans, ended=False)


def _check_scans(jpeg: JpegStructure, name: str) -> None:
    if jpeg.scans * jpeg.pixels > MAX_SCANNED_PIXELS:
        raise ImageError(
            f"{name} is too large: {jpeg.scans} scans of {jpeg.pixels} pixels; at most "
            f"{MAX_SCANNED_PIXELS // 10**9} billion pixels are passed over: save it again"
        )


def completions(data: bytes) -> list[bytes]:
    """Give a JPEG without its end marker several ends, which decode alike if all else is there.

    Each end feeds the decoder other bits where entropy-coded data is missing, so that a picture
    that really is cut off decodes to different pixels. Progressive pictures have none: a cut
    between two of their scans cannot be told.
    """
    jpeg = jpeg_structure(data)
    if jpeg.ended or not jpeg.sequential:
        return []
    end = bytes((0xFF, _END_OF_IMAGE))
    coded = data.rstrip(end[:1])  # half of the end marker may be there
    return [coded + filling * 64 + end for filling in (b"", b"\x55", b"\xaa")]
