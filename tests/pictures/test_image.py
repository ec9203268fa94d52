from __future__ import annotations

import io
import os
import struct
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from effnet_edge.errors import EffnetEdgeError, ImageError, UsageError
from effnet_edge.pictures import image as image_module
from effnet_edge.pictures.image import Preprocessing, crop_and_resize, decode, normalize, prepare

B0 = Preprocessing(224, 224 / 256, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16")


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


# --- geometry -------------------------------------------------------------------------------


def tensorflow_reference_crop(height: int, width: int, size: int) -> tuple[int, int, int]:
    """_decode_and_center_crop in preprocessing.py of TensorFlow's EfficientNet, in its float32."""
    padding = 32
    ratio = np.float32(size / (size + padding))
    side = int(ratio * np.float32(min(height, width)))
    return ((height - side) + 1) // 2, ((width - side) + 1) // 2, side


@given(
    height=st.integers(2, 400),
    width=st.integers(2, 400),
    size=st.sampled_from([224, 240, 260, 300]),
)
@settings(max_examples=60, deadline=None)
def test_crop_then_resize_is_the_tensorflow_reference(height: int, width: int, size: int) -> None:
    pixels = photo_like(height, width)
    top, left, side = tensorflow_reference_crop(height, width, size)
    expected = (
        Image.fromarray(pixels)
        .crop((left, top, left + side, top + side))
        .resize((32, 32), Image.Resampling.BICUBIC)
    )
    ours = crop_and_resize(pixels, replace(B0, resolution=32, crop_fraction=size / (size + 32)))
    np.testing.assert_array_equal(ours, np.asarray(expected))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(300, 400), (97, 61), (224, 224), (600, 256)])
def test_resampling_agrees_with_torch(interpolation: str, shape: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")

    height, width = shape
    pixels = photo_like(height, width)
    side = int(224 / 256 * min(height, width))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    square = torch.from_numpy(pixels[top : top + side, left : left + side].copy())
    expected = torch.nn.functional.interpolate(
        square.permute(2, 0, 1)[None], (224, 224), mode=interpolation, antialias=True
    )[0].permute(1, 2, 0)
    ours = crop_and_resize(pixels, replace(B0, interpolation=interpolation))
    assert np.abs(ours.astype(int) - expected.numpy().astype(int)).max() <= 1


def test_pixels_outside_the_crop_do_not_bleed_in() -> None:
    pixels = np.full((100, 100, 3), 255, np.uint8)
    pixels[25:75, 25:75] = 0
    assert crop_and_resize(pixels, replace(B0, resolution=16, crop_fraction=0.5)).max() == 0


def test_odd_margins_are_wider_at_the_top_and_left() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[1:, 1:] = 200
    ours = crop_and_resize(pixels, replace(B0, resolution=3, crop_fraction=0.75))
    assert ours.min() == 200


@given(st.integers(1, 60), st.integers(1, 60))
@settings(deadline=None)
def test_a_fraction_of_k_in_n_never_loses_a_row_to_float_error(first: int, second: int) -> None:
    kept, whole = sorted((first, second))
    pixels = photo_like(whole, 2 * whole)
    ours = crop_and_resize(pixels, replace(B0, resolution=kept, crop_fraction=kept / whole))
    top, left = (whole - kept + 1) // 2, (2 * whole - kept + 1) // 2
    np.testing.assert_array_equal(ours, pixels[top : top + kept, left : left + kept])


@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    mode=st.sampled_from(MODES),
    preprocessing=st.builds(
        Preprocessing,
        resolution=st.integers(1, 260),
        crop_fraction=st.floats(0, 1, exclude_min=True),
        interpolation=st.sampled_from(["bicubic", "bilinear"]),
        mean=st.just(B0.mean),
        std=st.just(B0.std),
    ),
)
@settings(max_examples=100, deadline=None)
def test_any_size_and_mode_gives_the_network_its_square(
    height: int, width: int, mode: str, preprocessing: Preprocessing
) -> None:
    image = (
        Image.new(mode, (width, height), 30000)
        if mode == "I;16"
        else Image.fromarray(photo_like(height, width)).convert(mode)
    )
    ours = prepare(image, preprocessing)
    assert ours.shape == (preprocessing.resolution, preprocessing.resolution, 3)
    assert ours.dtype == np.uint8
    assert ours.flags.writeable


@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    crop_fraction=st.floats(0.01, 1),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
)
@settings(max_examples=100, deadline=None)
def test_a_constant_colour_stays_constant(
    height: int, width: int, colour: tuple[int, int, int], crop_fraction: float, interpolation: str
) -> None:
    pixels = np.broadcast_to(np.array(colour, np.uint8), (height, width, 3))
    preprocessing = Preprocessing(33, crop_fraction, interpolation, B0.mean, B0.std)
    assert (crop_and_resize(pixels, preprocessing) == np.array(colour)).all()


def test_a_picture_20000_pixels_wide_is_read() -> None:
    wide = np.zeros((4, 20000, 3), np.uint8)
    wide[:, 10000:] = 255
    ours = prepare(encoded(wide, "PNG"), replace(B0, resolution=4, crop_fraction=1))
    np.testing.assert_array_equal(ours[..., 0], [[0, 0, 255, 255]] * 4)


def test_a_single_pixel_fills_the_square() -> None:
    ours = prepare(encoded(np.array([[[9, 8, 7]]], np.uint8), "PNG"), B0)
    assert (ours == np.array([9, 8, 7])).all()


# --- normalization --------------------------------------------------------------------------


def test_normalization_is_the_published_formula_in_nchw() -> None:
    torch = pytest.importorskip("torch")

    batch = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    ours = normalize(batch, B0)
    mean, std = (np.array(value).reshape(3, 1, 1) for value in (B0.mean, B0.std))
    exact = (torch.from_numpy(batch).permute(0, 3, 1, 2).double().numpy() / 255 - mean) / std
    assert ours.dtype == np.float32
    assert ours.shape == (2, 3, 5, 7)
    assert ours.flags.c_contiguous
    np.testing.assert_allclose(ours, exact, atol=2e-6)


@pytest.mark.parametrize(
    "batch",
    [np.zeros((2, 2, 3), np.uint8), np.zeros((1, 2, 2, 3)), np.zeros((1, 3, 2, 2), np.uint8)],
)
def test_only_uint8_nhwc_batches_are_normalized(batch: np.ndarray) -> None:
    with pytest.raises(ImageError, match="uint8"):
        normalize(batch, B0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resolution", 0),
        ("crop_fraction", 0.0),
        ("crop_fraction", 1.01),
        ("crop_fraction", float("nan")),
        ("interpolation", "nearest"),
        ("mean", (0.5, 0.5)),
        ("mean", (0.5, 0.5, float("nan"))),
        ("std", (0.2, 0.2, 0.0)),
        ("std", (0.2, 0.2, float("nan"))),
    ],
)
def test_preprocessing_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        replace(B0, **{field: value})


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


# --- what is refused ------------------------------------------------------------------------


def test_a_missing_path_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    for path in (tmp_path / "none.jpg", tmp_path / "a.jpg" / "b.jpg"):
        with pytest.raises(UsageError) as error:
            decode(path)
        assert str(path) in one_line(error)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as error:
        decode(tmp_path)
    assert f"{str(tmp_path)!r} is not a file" in one_line(error)


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="is not a file"):
        decode(tmp_path / "a.jpg")


def test_a_file_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(photo_like(2, 2), "PNG"))

    def denied(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", denied)  # root, as in containers, may read everything
    with pytest.raises(ImageError, match="Permission denied") as error:
        decode(file)
    assert str(file) in one_line(error)


@pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 5000])
def test_an_impossible_file_name_is_refused(name: str) -> None:
    with pytest.raises(ImageError) as error:
        decode(name)
    one_line(error)


def test_a_newline_in_the_file_name_does_not_break_the_line(tmp_path: Path) -> None:
    file = tmp_path / "a\nb\u2028c.jpg"
    file.write_bytes(b"no picture")
    with pytest.raises(ImageError) as error:
        decode(file)
    assert "a\\nb" in one_line(error)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.touch()
    with pytest.raises(ImageError, match="is empty") as error:
        decode(file)
    assert str(file) in one_line(error)
    with pytest.raises(ImageError, match="image bytes is empty"):
        decode(b"")


def test_a_text_file_named_jpg_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_text("this is no picture\n" * 100)
    with pytest.raises(ImageError, match="is not a picture") as error:
        decode(file)
    assert str(file) in one_line(error)


def test_postscript_is_not_run() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "EPS")
    with pytest.raises(ImageError, match="is not a picture"):
        decode(stream.getvalue())


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused(tmp_path: Path, image_format: str, kept: float) -> None:
    content = encoded(photo_like(200, 200), image_format)
    file = tmp_path / "cut"
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ImageError) as error:
        decode(file)
    assert str(file) in one_line(error)


def test_a_decompression_bomb_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    content = encoded(np.zeros((10, 21, 3), np.uint8), "PNG")
    with pytest.raises(ImageError, match=r"too large.*210 pixels.*200") as error:
        decode(content)
    one_line(error)


def test_a_real_bomb_is_refused_before_it_is_unpacked() -> None:
    content = bytearray(encoded(np.zeros((1, 1), np.uint8), "PNG"))
    content[16:24] = struct.pack(">II", 20000, 20000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(ImageError, match=r"too large.*400000000"):
        decode(bytes(content))


@pytest.mark.parametrize("policy", ["always", "error"])
def test_below_the_limit_no_bomb_warning_leaks(
    monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    pixels = photo_like(10, 15)
    content = encoded(pixels, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(policy)  # type: ignore[arg-type]
        np.testing.assert_array_equal(decode(content), pixels)
        with pytest.raises(Image.DecompressionBombWarning):
            _open_loudly(content)
    assert not caught


def _open_loudly(content: bytes) -> None:
    """That the warning is there to be silenced."""
    warnings.simplefilter("error")
    Image.open(io.BytesIO(content))


@pytest.mark.parametrize(
    "raised",
    [
        SyntaxError("not a\nPNG"),
        struct.error("unpack"),
        ValueError(),
        zlib.error("bad"),
        EOFError(),
        IndexError("list"),
        KeyError(3),
        OverflowError("x"),
        RecursionError("deep"),
        MemoryError(),
        OSError("broken data stream"),
    ],
    ids=lambda raised: type(raised).__name__,
)
def test_whatever_pillow_raises_is_one_line_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(photo_like(4, 4), "PNG"))

    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(image_module.Image, "open", fail)
    with pytest.raises(ImageError) as error:
        decode(file)
    assert str(file) in one_line(error)


ORIENTATION_6 = struct.pack("<6s4sIHHHIHHI", b"Exif\0\0", b"II*\0", 8, 1, 0x0112, 3, 1, 6, 0, 0)
FUZZED = {
    "JPEG": encoded(photo_like(23, 31), "JPEG"),
    "progressive JPEG with EXIF": encoded(
        photo_like(23, 31), "JPEG", progressive=True, exif=ORIENTATION_6
    ),
    "PNG": encoded(photo_like(11, 13), "PNG"),
    "palette PNG": encoded(Image.fromarray(photo_like(11, 13)).convert("P"), "PNG", transparency=1),
    "GIF": encoded(photo_like(11, 13), "GIF"),
    "animated GIF": encoded(
        photo_like(11, 13),
        "GIF",
        save_all=True,
        append_images=[Image.fromarray(photo_like(11, 13, 1))],
    ),
    "WEBP": encoded(photo_like(23, 31), "WEBP"),
    "TIFF": encoded(photo_like(11, 13), "TIFF", compression="tiff_lzw"),
    "16-bit PNG": png_16_bit(SIXTEEN_BIT),
    "BMP": encoded(photo_like(5, 6), "BMP"),
    "PPM": encoded(photo_like(5, 6), "PPM"),
}


@pytest.mark.parametrize("name", FUZZED)
@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_damaged_bytes_decode_or_raise_an_image_error(name: str, data: st.DataObject) -> None:
    content = bytearray(FUZZED[name])
    last = len(content) - 1
    position = st.one_of(st.integers(0, min(63, last)), st.integers(0, last))
    for index, value in data.draw(st.lists(st.tuples(position, st.integers(0, 255)), max_size=5)):
        content[index] = value
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    outcome = decoded_or_refused(bytes(content[:cut]))
    if isinstance(outcome, str):
        assert len(outcome.splitlines()) == 1
        assert outcome.startswith("image bytes")
    else:
        assert outcome.dtype == np.uint8
        assert outcome.ndim == 3
        assert outcome.shape[2] == 3


def decoded_or_refused(content: bytes) -> np.ndarray | str:
    """The pixels or the text of the `ImageError`; anything else, warnings too, gets through."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return decode(content)
        except ImageError as error:
            return str(error)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(ImageError):
        decode(content)


# --- threads --------------------------------------------------------------------------------


def test_many_threads_decode_the_same_and_leave_the_warning_filters_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good, bad = FUZZED["JPEG"], FUZZED["PNG"][:200]
    expected = decode(good)
    filters = list(warnings.filters)
    barrier = threading.Barrier(8)
    open_at_once = Image.open

    def open_slowly(*args: object, **options: object) -> Image.Image:
        time.sleep(0.001)  # lets the other threads in while the filters are changed
        return open_at_once(*args, **options)

    def work(index: int) -> bool:
        barrier.wait()
        for _ in range(20):
            if index % 2:
                np.testing.assert_array_equal(decode(good), expected)
            else:
                with pytest.raises(ImageError):
                    decode(bad)
        return True

    monkeypatch.setattr(image_module.Image, "open", open_slowly)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert list(warnings.filters) == filters
