from __future__ import annotations

import io
import os
import struct
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_makers import SIXTEEN_BIT, encoded, one_line, photo_like, png_16_bit
from PIL import Image

from effnet_edge.errors import ImageError, UsageError
from effnet_edge.pictures import decoding
from effnet_edge.pictures.image import Preprocessing, decode

B0 = Preprocessing(224, 224 / 256, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16")


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
    """As bad use, which a name that does not exist is, too."""
    with pytest.raises(UsageError) as error:
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

    monkeypatch.setattr(decoding.Image, "open", fail)
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

    monkeypatch.setattr(decoding.Image, "open", open_slowly)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert list(warnings.filters) == filters
