"""What is looked at before a picture is decoded: metadata, end markers, scans, sizes."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from picture_makers import encoded, one_line, photo_like
from PIL import Image, PngImagePlugin

from effnet_edge.errors import ImageError
from effnet_edge.pictures import arrays, containers, decoding
from effnet_edge.pictures.decoding import decode

if TYPE_CHECKING:
    from pathlib import Path

PHOTO = photo_like(61, 83)
TWO_GIB = 2 << 30
MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I;16"]


def png_with(**options: object) -> bytes:
    return encoded(PHOTO, "PNG", **options)


def text(size: int, *, compressed: bool) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "x" * size, zip=compressed)
    info.add_text("Comment", "y" * size, zip=compressed)
    return info


@pytest.mark.parametrize(
    "content",
    [
        png_with(pnginfo=text(1_500_000, compressed=True)),
        png_with(pnginfo=text(70_000_000, compressed=True)),
        png_with(pnginfo=text(1_500_000, compressed=False)),
        png_with(icc_profile=b"\0" * 1_500_000),
    ],
    ids=["xmp", "xmp of 70 MB", "plain text", "colour profile"],
)
def test_metadata_of_a_png_does_not_hinder_decoding(content: bytes) -> None:
    np.testing.assert_array_equal(decode(content), PHOTO)


def test_what_a_png_needs_survives() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(PHOTO).quantize(64)
    content = encoded(
        image, "PNG", transparency=3, exif=exif, pnginfo=text(2_000_000, compressed=True)
    )
    plain = Image.open(io.BytesIO(encoded(image, "PNG", transparency=3))).convert("RGBA")
    white = Image.alpha_composite(Image.new("RGBA", plain.size, "white"), plain).convert("RGB")

    np.testing.assert_array_equal(
        decode(content), np.asarray(white.transpose(Image.Transpose.ROTATE_270))
    )


@pytest.mark.parametrize("size", [(83, 61), (64, 64), (7, 9)])
@pytest.mark.parametrize("options", [{}, {"quality": 100}, {"subsampling": 0}], ids=str)
def test_a_jpeg_that_lacks_only_its_end_marker_is_read(
    size: tuple[int, int], options: dict
) -> None:
    content = encoded(photo_like(*size), "JPEG", **options)
    assert content.endswith(b"\xff\xd9")

    np.testing.assert_array_equal(decode(content[:-2]), decode(content))
    np.testing.assert_array_equal(decode(content[:-1]), decode(content))


@pytest.mark.parametrize("missing", [6, 12, 40, 200])
def test_a_jpeg_that_lacks_pixels_is_still_refused(missing: int) -> None:
    content = encoded(PHOTO, "JPEG", quality=95)

    with pytest.raises(ImageError, match="damaged"):
        decode(content[:-missing])


def test_a_progressive_jpeg_without_its_end_is_refused() -> None:
    content = encoded(PHOTO, "JPEG", progressive=True)

    with pytest.raises(ImageError, match="damaged"):
        decode(content[:-2])


def jpeg_of_many_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan stands there again and again."""
    content = encoded(PHOTO, "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + b"\xff\xd9"


def test_the_scans_of_a_jpeg_are_counted() -> None:
    pixels = PHOTO.shape[0] * PHOTO.shape[1]
    plain = containers.jpeg_structure(encoded(PHOTO, "JPEG"))
    assert plain == containers.JpegStructure(pixels, sequential=True, scans=1, ended=True)
    usual = containers.jpeg_structure(encoded(PHOTO, "JPEG", progressive=True))
    assert (usual.sequential, usual.ended) == (False, True)
    assert containers.jpeg_structure(jpeg_of_many_scans(50)).scans == usual.scans + 49


def test_a_jpeg_of_too_many_scans_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = PHOTO.shape[0] * PHOTO.shape[1]
    monkeypatch.setattr(containers, "MAX_SCANNED_PIXELS", 100 * pixels)
    decode(jpeg_of_many_scans(80))

    with pytest.raises(ImageError, match=rf"too large: 1\d\d scans of {pixels} pixels") as error:
        decode(jpeg_of_many_scans(120))
    one_line(error)


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"hevx"])
def test_a_heic_picture_is_told_to_be_one(brand: bytes, tmp_path: Path) -> None:
    path = tmp_path / "IMG_1.jpg"
    path.write_bytes(struct.pack(">I4s4sI4s", 24, b"ftyp", brand, 0, b"miaf") + bytes(200))

    with pytest.raises(ImageError, match="is a HEIC picture.*save it as JPEG or PNG") as error:
        decode(path)
    assert "IMG_1.jpg" in one_line(error)


def test_an_avif_picture_is_no_heic() -> None:
    content = encoded(PHOTO, "AVIF")

    assert decode(content).shape == PHOTO.shape
    brands = content[8:12]
    assert brands == b"avif"


def test_a_picture_of_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = PHOTO.shape[0] * PHOTO.shape[1]
    monkeypatch.setattr(decoding, "MAX_PIXELS", pixels)
    decode(png_with())
    monkeypatch.setattr(decoding, "MAX_PIXELS", pixels - 1)

    with pytest.raises(ImageError, match="too large: 0 million pixels; at most 0 million") as error:
        decode(png_with())
    one_line(error)


def of_mode(mode: str) -> Image.Image:
    image = Image.fromarray(PHOTO)
    through = {"I;16": "L", "PA": "P"}.get(mode, "RGB")
    return image.convert(through).convert(mode)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I;16"],
)
def test_strips_give_what_the_whole_picture_gives(
    monkeypatch: pytest.MonkeyPatch, mode: str, channels: int
) -> None:
    image = of_mode(mode)
    whole = decode(image, channels)
    monkeypatch.setattr(decoding, "_STRIP_PIXELS", 300)

    np.testing.assert_array_equal(decode(image, channels), whole)


def gif_of(width: int, height: int) -> bytes:
    """43 bytes that stand for a picture of any size (GIF89a specification, appendix F)."""
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
    return b"GIF89a" + screen + bytes(6) + b"!\xf9\x04\x01\0\0\0\0" + frame + b"\x02\x02D\x01\0;"


def peak_of_decoding(path: Path) -> int:
    """Decode in a process of its own, and give the bytes that it took at most."""
    program = (
        "import resource, sys\nfrom effnet_edge.errors import ImageError\n"
        "from effnet_edge.pictures.decoding import decode\n"
        "try:\n    decode(sys.argv[1])\nexcept ImageError:\n    pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    return int(done.stdout) * 1024


@pytest.mark.parametrize("size", [(13_000, 13_000), (10_400, 10_500), (65_535, 65_535)])
def test_a_gif_of_43_bytes_does_not_take_gigabytes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "bomb.gif"
    path.write_bytes(gif_of(*size))

    assert peak_of_decoding(path) < TWO_GIB


@pytest.mark.slow
def test_a_small_archive_of_a_huge_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, np.zeros((1 << 16, 1 << 13, 3), np.uint8))
    assert path.stat().st_size < 4_000_000

    with pytest.raises(ImageError, match=r"too large.*at most 512 MiB") as error:
        decode(path)
    one_line(error)


def test_an_array_at_the_limit_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "photo.npz"
    np.savez(path, PHOTO)
    monkeypatch.setattr(arrays, "MAX_ARRAY_BYTES", PHOTO.nbytes)
    np.testing.assert_array_equal(decode(path), PHOTO)
    monkeypatch.setattr(arrays, "MAX_ARRAY_BYTES", PHOTO.nbytes - 1)

    with pytest.raises(ImageError, match="too large"):
        decode(path)
