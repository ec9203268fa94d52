from __future__ import annotations

import io
import os
import signal
import threading
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from picture_makers import SIXTEEN_BIT, encoded, one_line, photo_like, png_16_bit, tiff_16_bit
from PIL import Image, ImageOps, TiffImagePlugin

from effnet_edge.errors import ImageError
from effnet_edge.pictures.decoding import _pillow_warnings_silenced
from effnet_edge.pictures.image import Preprocessing, decode

if TYPE_CHECKING:
    from pathlib import Path

B0 = Preprocessing(224, 224 / 256, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16")


# --- what a source may be -------------------------------------------------------------------


def test_every_kind_of_source_gives_the_same_pixels(tmp_path: Path) -> None:
    pixels = photo_like(30, 40)
    file = tmp_path / "a.png"
    file.write_bytes(encoded(pixels, "PNG"))
    for source in (file, str(file), file.read_bytes(), Image.open(file), pixels):
        ours = decode(source)
        assert ours.dtype == np.uint8
        np.testing.assert_array_equal(ours, pixels)


def test_a_greyscale_array_becomes_rgb() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(decode(grey), np.stack([grey] * 3, axis=2))


def test_the_decoded_array_is_not_the_callers_own() -> None:
    pixels = photo_like(3, 4)
    decode(pixels)[:] = 0
    assert pixels.any()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((4, 4), np.uint16),
    ],
)
def test_other_arrays_are_refused_with_what_they_are(array: np.ndarray) -> None:
    with pytest.raises(ImageError) as error:
        decode(array)
    assert str(array.dtype) in one_line(error)


@pytest.mark.parametrize(
    ("array", "remedy"),
    [
        (np.zeros((4, 5, 3), np.float32), "astype(numpy.uint8)"),
        (np.zeros((3, 4, 5), np.uint8), "numpy.moveaxis(array, -3, -1)"),
        (np.zeros((4, 5, 2), np.uint8), "not uint8 (4, 5, 2)"),
    ],
)
def test_what_is_nearly_a_picture_is_told_how_to_become_one(array: np.ndarray, remedy: str) -> None:
    with pytest.raises(ImageError) as error:
        decode(array)
    assert one_line(error).endswith(remedy)


@pytest.mark.parametrize("source", [None, 3, bytearray(b"x"), [b"x"]])
def test_other_types_are_refused(source: object) -> None:
    with pytest.raises(ImageError, match="is not a picture"):
        decode(source)  # type: ignore[arg-type]


def test_a_pillow_image_without_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="0 x 3"):
        decode(Image.new("RGB", (0, 3)))


def test_a_pillow_image_is_left_as_it_was() -> None:
    image = Image.fromarray(photo_like(5, 8)).convert("RGBA")
    image.getexif()[0x0112] = 6
    before = (image.size, image.mode, image.tobytes(), dict(image.info))
    decode(image)
    assert (image.size, image.mode, image.tobytes(), dict(image.info)) == before


# --- colours --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "image_format"),
    [
        *[(mode, "PNG") for mode in ("1", "L", "P", "RGB")],
        *[(mode, "GIF") for mode in ("1", "L", "P")],
        *[(mode, "JPEG") for mode in ("L", "RGB", "CMYK")],
        *[(mode, "TIFF") for mode in ("1", "L", "P", "RGB", "CMYK")],
    ],
)
def test_opaque_modes_are_read_as_pillow_converts_them(mode: str, image_format: str) -> None:
    content = encoded(Image.fromarray(photo_like(20, 30)).convert(mode), image_format)
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    np.testing.assert_array_equal(decode(content), np.asarray(expected))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_over_white(image_format: str) -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = (0, 128, 255)
    options = {"lossless": True} if image_format == "WEBP" else {}
    content = encoded(rgba, image_format, **options)
    alpha = rgba[..., 3:].astype(float) / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(decode(content), expected, atol=1)


def test_greyscale_with_alpha_is_laid_over_white() -> None:
    grey, alpha = np.array([[100, 100]], np.uint8), np.array([[0, 255]], np.uint8)
    la = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    np.testing.assert_array_equal(decode(encoded(la, "PNG")), [[[255] * 3, [100] * 3]])


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(image_format: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    ours = decode(encoded(image, image_format, transparency=0))
    np.testing.assert_array_equal(ours, [[[255, 255, 255], [40, 50, 60]]])


def test_a_transparent_key_colour_is_white() -> None:
    pixels = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    ours = decode(encoded(pixels, "PNG", transparency=(1, 2, 3)))
    np.testing.assert_array_equal(ours, [[[255, 255, 255], [4, 5, 6]]])


@pytest.mark.parametrize(
    "content",
    [
        png_16_bit(SIXTEEN_BIT),
        tiff_16_bit(SIXTEEN_BIT, "<"),
        tiff_16_bit(SIXTEEN_BIT, ">"),
        Image.fromarray(SIXTEEN_BIT.astype(np.int32)),
        Image.fromarray(SIXTEEN_BIT),
    ],
    ids=["png", "tiff little", "tiff big", "mode I", "mode I;16"],
)
def test_16_bit_greyscale_is_scaled_and_not_clipped(content: bytes | Image.Image) -> None:
    expected = np.rint(SIXTEEN_BIT / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode(content), np.stack([expected] * 3, axis=2))


@pytest.mark.parametrize("value", [-1, 65536])
def test_32_bit_pixels_beyond_16_bit_are_refused(value: int) -> None:
    image = Image.fromarray(np.array([[0, value]], np.int32))
    with pytest.raises(ImageError, match="32-bit") as error:
        decode(encoded(image, "TIFF"))
    assert one_line(error).startswith("image bytes")


def test_floating_point_pixels_are_refused() -> None:
    content = encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF")
    with pytest.raises(ImageError, match="floating-point"):
        decode(content)


def test_lab_colours_are_refused_with_what_helps() -> None:
    lab = Image.merge("LAB", Image.fromarray(photo_like(9, 8)).split())

    with pytest.raises(ImageError, match="CIE L.*save it in RGB"):
        decode(encoded(lab, "TIFF"))


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(image_format: str) -> None:
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if image_format == "WEBP" else {}
    content = encoded(first, image_format, save_all=True, append_images=[second], **options)
    assert Image.open(io.BytesIO(content)).n_frames == 2
    assert (decode(content) == np.array([255, 0, 0])).all()


# --- EXIF orientation -----------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_is_applied(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photo_like(24, 40), image_format, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    assert expected.size == ((40, 24) if orientation < 5 else (24, 40))
    np.testing.assert_array_equal(decode(content), np.asarray(expected))


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "TIFF"])
def test_an_orientation_of_xmp_is_not_followed(image_format: str) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[700], tags.tagtype[700] = XMP, 7
    options = {"tiffinfo": tags} if image_format == "TIFF" else {"xmp": XMP}
    content = encoded(photo_like(24, 40), image_format, **options)
    assert decode(content).shape == (24, 40, 3)
    with Image.open(io.BytesIO(content)) as image:
        told = dict(image.info)
        assert decode(image).shape == (24, 40, 3)
        assert image.info.keys() >= told.keys()


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_leaves_the_picture_as_it_lies(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = photo_like(4, 6)
    np.testing.assert_array_equal(decode(encoded(pixels, "PNG", exif=exif)), pixels)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("block", [b"XXXXXXXX", b"II*\0", b"II*\0\xff\xff\xff\x7f"])
def test_a_damaged_exif_block_leaves_the_picture_as_it_lies(
    image_format: str, block: bytes
) -> None:
    pixels = photo_like(16, 16)
    plain = encoded(pixels, image_format)
    content = encoded(pixels, image_format, exif=b"Exif\0\0" + block)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(decode(content), decode(plain))


# --- among threads and processes --------------------------------------------------------------


def test_filters_of_the_program_are_not_lost() -> None:
    content, stop = encoded(photo_like(4, 6), "PNG"), threading.Event()

    def busy() -> None:
        while not stop.is_set():
            decode(content)

    threads = [threading.Thread(target=busy) for _ in range(2)]
    with warnings.catch_warnings():
        for each in threads:
            each.start()
        try:
            for number in range(50):
                warnings.filterwarnings("ignore", message=f"mine {number}")
                stop.wait(0.003)
        finally:
            stop.set()
            for each in threads:
                each.join()
        told = [pattern.pattern for _, pattern, *_ in warnings.filters if pattern is not None]
        modules = [filter_[3] for filter_ in warnings.filters if filter_[3] is not None]
    assert [f"mine {number}" for number in reversed(range(50))] == told[:50]
    assert "PIL" not in "".join(str(getattr(each, "pattern", each)) for each in modules)


def test_a_child_of_a_fork_decodes_whatever_threads_did_at_the_fork() -> None:
    content = encoded(photo_like(4, 6), "PNG")
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with _pillow_warnings_silenced():
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        signal.alarm(20)
        decode(content)
        os._exit(0)
    release.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
