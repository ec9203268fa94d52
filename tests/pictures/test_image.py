from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_makers import encoded, photo_like
from PIL import Image

from effnet_edge.errors import ImageError, UsageError
from effnet_edge.pictures.image import Preprocessing, crop_and_resize, normalize, prepare
from effnet_edge.size import Size

if TYPE_CHECKING:
    from numpy.typing import NDArray

B0 = Preprocessing(224, 224 / 256, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16")


# --- resampling -----------------------------------------------------------------------------


def cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -0.5, which Pillow documents for BICUBIC."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0))


def resampled(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The columns at another height, rounded to 8 bit."""
    scale = len(values) / size
    width = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    weights = cubic(np.abs(np.arange(len(values)) + 0.5 - centres[:, None]) / width)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(np.floor(weights @ values + 0.5), 0, 255)


@pytest.mark.parametrize(
    ("size", "target"), [((133, 100), (96, 8)), ((100, 9), (32, 8)), ((40, 60), (60, 40))]
)
def test_rows_are_resampled_before_columns(size: tuple[int, int], target: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    whole = replace(B0, resolution=Size(*target), crop_fraction=1.0, fit="stretch")
    found = crop_and_resize(noise, whole).astype(int)
    height, width = target
    for band in range(3):
        values = noise[:, :, band].astype(float)
        rows_first = resampled(resampled(values.T, width).T, height)
        assert np.abs(found[:, :, band] - rows_first).max() <= 1


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
    assert ours.shape == (preprocessing.resolution.height, preprocessing.resolution.width, 3)
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
