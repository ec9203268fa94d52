"""Files that Pillow reads, and reads wrongly: as their format says, or refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

from effnet_edge.errors import ImageError
from effnet_edge.pictures.decoding import decode

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (40, 30), np.uint8)
ALPHA = RANDOM.integers(0, 256, (40, 30), np.uint8)
COLOURS = RANDOM.integers(0, 256, (40, 30, 3), np.uint8)


def tiff(pixels: NDArray[np.generic], **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def png(width: int, depth: int, colours: int, row: bytes, *extra: bytes) -> bytes:
    """One row of pixels, by the format's numbers of the colours."""
    header = struct.pack(">IIBBBBB", width, 1, depth, colours, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(b"\0" + row))]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def planes(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.ascontiguousarray(np.moveaxis(pixels, 2, 0))


def in_16_bit(pixels: NDArray[np.uint8], order: str = "<") -> NDArray[np.uint16]:
    return (pixels.astype(np.uint16) * 257).astype(f"{order}u2")


def test_grey_of_16_bits_whose_zero_is_white() -> None:
    found = decode(tiff(in_16_bit(GREY), photometric="miniswhite"), channels=1)
    assert np.array_equal(found[:, :, 0], 255 - GREY)
    with pytest.raises(ImageError, match="is not a picture"):
        decode(tiff(in_16_bit(GREY, ">"), photometric="miniswhite", byteorder=">"))


def test_grey_of_12_bits_is_scaled_by_its_own_white() -> None:
    levels = [0, 1365, 2730, 4095]
    packed = int("".join(f"{level:012b}" for level in levels), 2).to_bytes(6, "big")
    assert decode(_tiff_of_12_bits(packed), channels=1).ravel().tolist() == [0, 85, 170, 255]


def _tiff_of_12_bits(packed: bytes) -> bytes:
    entries = [
        *((256, 3, 1, 4), (257, 3, 1, 1), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((273, 4, 1, 122), (277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, len(packed))),
    ]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0)
    return head.ljust(122, b"\0") + packed


@pytest.mark.parametrize("bands", [3, 4])
def test_planes_of_16_bits_are_read_right_or_refused(bands: int) -> None:
    pixels = np.dstack([COLOURS, np.full_like(GREY, 255)])[:, :, :bands]
    options = {"photometric": "rgb", "planarconfig": "separate"}
    if bands == 4:
        options["extrasamples"] = ["unassalpha"]
    with pytest.raises(ImageError, match=rf"channels one after another.* for {bands} of them with"):
        decode(tiff(planes(in_16_bit(pixels)), **options))
    assert np.array_equal(
        decode(tiff(planes(in_16_bit(pixels)), compression="zlib", **options)), COLOURS
    )
    assert np.array_equal(decode(tiff(planes(pixels), **options)), COLOURS)


def test_grey_and_alpha_apart_are_refused() -> None:
    options = {"photometric": "minisblack", "extrasamples": ["unassalpha"]}
    both = np.dstack([GREY, ALPHA])
    for compression in (None, "zlib"):
        with pytest.raises(ImageError, match="channels one after another"):
            decode(tiff(planes(both), planarconfig="separate", compression=compression, **options))
    found = decode(tiff(both, **options), channels=1)[:, :, 0]
    assert np.abs(found - over_white(GREY, ALPHA)).max() <= 1


def over_white(grey: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.float64]:
    share: NDArray[np.float64] = alpha / 255
    return grey * share + 255 * (1 - share)


def test_grey_that_is_multiplied_by_its_alpha() -> None:
    premultiplied = np.round(GREY * (ALPHA / 255)).astype(np.uint8)
    content = tiff(
        np.dstack([premultiplied, ALPHA]), photometric="minisblack", extrasamples=["assocalpha"]
    )
    for channels in (1, 3):
        found = decode(content, channels)[:, :, 0]
        assert np.abs(found - (premultiplied + 255.0 - ALPHA)).max() <= 2


def test_samples_with_a_sign_are_refused() -> None:
    with pytest.raises(ImageError, match="pixels with a sign"):
        decode(tiff(np.full((8, 8), 32767, np.int16), photometric="minisblack"))


@pytest.mark.parametrize(
    ("depth", "row", "transparent", "shown"),
    [
        (1, b"\x40", 1, [0, 255]),
        (1, b"\x40", 0, [255, 255]),
        (2, b"\x1b", 1, [0, 255, 170, 255]),
        (2, b"\x1b", 3, [0, 85, 170, 255]),
        (4, b"\x5f", 5, [255, 255]),
        (4, b"\x5a", 10, [85, 255]),
        (8, bytes([0, 4, 117]), 0, [255, 4, 117]),
        (16, struct.pack(">4H", 0, 1000, 30000, 65535), 0, [255, 4, 117, 255]),
        (16, struct.pack(">4H", 0, 1000, 1001, 65535), 1000, [0, 255, 4, 255]),
    ],
)
def test_a_transparent_grey(depth: int, row: bytes, transparent: int, shown: list[int]) -> None:
    content = png(len(shown), depth, 0, row, chunk(b"tRNS", struct.pack(">H", transparent)))
    assert decode(content, channels=1).ravel().tolist() == shown
    assert decode(content)[:, :, 1].ravel().tolist() == shown


def test_a_transparent_colour_of_16_bits_is_refused() -> None:
    row = struct.pack(">6H", 0, 0, 0, 0x8000, 0x8000, 0x8000)
    content = png(2, 16, 2, row, chunk(b"tRNS", struct.pack(">3H", 0x8000, 0x8000, 0x8000)))
    with pytest.raises(ImageError, match="save it with an alpha channel"):
        decode(content)
    assert decode(png(2, 16, 2, row))[0, :, 0].tolist() == [0, 128]


def test_a_damaged_transparency_is_not_made_sound() -> None:
    content = png(4, 2, 0, b"\x1b", chunk(b"tRNS", b"\0\1"))
    with pytest.raises(ImageError, match="damaged"):
        decode(content.replace(chunk(b"tRNS", b"\0\1"), chunk(b"tRNS", b"\0\1")[:-1] + b"?"))


def animation(*, default_image: bool) -> bytes:
    """Red for programs without animations, where that is no frame; then blue and green."""
    file = io.BytesIO()
    frames = [Image.new("RGB", (6, 4), "blue"), Image.new("RGB", (6, 4), "lime")]
    first = Image.new("RGB", (6, 4), "red")
    first.save(file, "PNG", save_all=True, default_image=default_image, append_images=frames)
    return file.getvalue()


def test_the_first_frame_of_an_animation_is_read() -> None:
    assert np.array_equal(decode(animation(default_image=True)), np.full((4, 6, 3), [0, 0, 255]))
    assert np.array_equal(decode(animation(default_image=False)), np.full((4, 6, 3), [255, 0, 0]))


def test_a_first_frame_that_is_a_part_is_refused() -> None:
    content = animation(default_image=True)
    at = content.index(b"fcTL")
    control = bytearray(content[at + 4 : at + 30])
    struct.pack_into(">I", control, 4, 5)
    changed = content[: at - 4] + chunk(b"fcTL", bytes(control)) + content[at + 34 :]
    with pytest.raises(ImageError, match="whose first frame is a part of the picture"):
        decode(changed)
