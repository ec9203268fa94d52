"""Pictures of any shape in inputs of any shape, against Pillow called by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_makers import photo_like
from PIL import Image, ImageOps

from effnet_edge.errors import UsageError
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.pictures.fitting import FITS, window
from effnet_edge.pictures.image import Preprocessing, crop_and_resize
from effnet_edge.size import Size

if TYPE_CHECKING:
    from effnet_edge.pictures.fitting import Fit

BICUBIC = Image.Resampling.BICUBIC
WIDE = Preprocessing(
    Size(96, 160), 1.0, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "crop"
)
TALL = replace(WIDE, resolution=Size(160, 96))
SIDES = st.integers(1, 300)
SIZES = st.builds(Size, st.integers(1, 64), st.integers(1, 64))


def test_crop_cuts_the_largest_centre_of_the_inputs_shape() -> None:
    pixels = photo_like(300, 300)
    # 300 × 96/160 = 180 rows of 300: 60 above and below.
    cut = Image.fromarray(pixels).crop((0, 60, 300, 240))
    np.testing.assert_array_equal(crop_and_resize(pixels, WIDE), cut.resize((160, 96), BICUBIC))
    cut = Image.fromarray(pixels).crop((60, 0, 240, 300))
    np.testing.assert_array_equal(crop_and_resize(pixels, TALL), cut.resize((96, 160), BICUBIC))


@pytest.mark.parametrize("preprocessing", [WIDE, TALL], ids=["wide", "tall"])
@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (61, 97), (500, 120)])
def test_crop_is_pillows_own_fit(shape: tuple[int, int], preprocessing: Preprocessing) -> None:
    """Up to the whole pixels that we cut, where Pillow cuts at fractions of them.

    The picture's colours tell the place: red the row and green the column, of 256 each.
    """
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    places = np.stack([256 * rows / height, 256 * columns / width, 0 * rows], axis=2)
    pixels, size = places.astype(np.uint8), preprocessing.resolution

    theirs = ImageOps.fit(Image.fromarray(pixels), (size.width, size.height), BICUBIC)

    ours = crop_and_resize(pixels, preprocessing)
    difference = np.abs(ours.astype(int) - np.asarray(theirs).astype(int))
    assert difference[..., 0].mean() <= 1 + 256 / height
    assert difference[..., 1].mean() <= 1 + 256 / width


def test_a_crop_fraction_leaves_a_margin_on_both_axes() -> None:
    pixels = photo_like(120, 200)
    cut = Image.fromarray(pixels).crop((50, 30, 150, 90))  # half of either side
    ours = crop_and_resize(pixels, replace(WIDE, crop_fraction=0.5))
    np.testing.assert_array_equal(ours, cut.resize((160, 96), BICUBIC))


@pytest.mark.parametrize("shape", [(480, 640), (97, 61), (20, 500)])
def test_stretch_is_pillows_resize_of_the_whole(shape: tuple[int, int]) -> None:
    pixels = photo_like(*shape)
    rows = Image.fromarray(pixels).resize((160, shape[0]), BICUBIC)
    theirs = rows.resize((160, 96), BICUBIC)
    np.testing.assert_array_equal(crop_and_resize(pixels, replace(WIDE, fit="stretch")), theirs)


@pytest.mark.parametrize("preprocessing", [WIDE, TALL], ids=["wide", "tall"])
@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (96, 160), (100, 333), (3, 500)])
def test_pad_is_the_whole_picture_with_borders_of_the_mean(
    shape: tuple[int, int], preprocessing: Preprocessing
) -> None:
    pixels, size = photo_like(*shape), preprocessing.resolution
    colour = (124, 116, 104)  # 255 times ImageNet's mean, as timm rounds it
    scale = min(size.height / shape[0], size.width / shape[1])
    height, width = (max(1, round(side * scale)) for side in shape)
    shown = Image.fromarray(pixels).resize((width, height), BICUBIC)
    theirs = Image.new("RGB", (size.width, size.height), colour)
    theirs.paste(shown, ((size.width - width) // 2, (size.height - height) // 2))
    np.testing.assert_array_equal(
        crop_and_resize(pixels, replace(preprocessing, fit="pad")), np.asarray(theirs)
    )


def test_borders_have_every_channels_own_mean() -> None:
    four = Preprocessing(Size(8, 16), 1.0, "bilinear", (0.1, 0.5, -0.2, 1.7), (0.2,) * 4, fit="pad")
    ours = crop_and_resize(np.full((5, 5, 4), 77, np.uint8), four)
    assert (ours[:, :4] == [26, 128, 0, 255]).all()
    assert (ours[:, 4:12] == 77).all()
    assert (ours[:, 12:] == [26, 128, 0, 255]).all()


@given(height=SIDES, width=SIDES, target=SIZES, fit=st.sampled_from(FITS), data=st.data())
@settings(max_examples=300, deadline=None)
def test_every_picture_lands_in_every_input(
    height: int, width: int, target: Size, fit: Fit, data: st.DataObject
) -> None:
    fraction = data.draw(st.floats(0.01, 1) | st.just(1.0))
    placed = window(Size(height, width), target, fit, fraction)

    assert placed.cut.height <= height
    assert placed.cut.width <= width
    assert placed.shown.height <= target.height
    assert placed.shown.width <= target.width
    if fit != "pad":
        assert placed.shown == target
    elif fraction == 1:
        assert placed.cut == Size(height, width)
        assert placed.shown.height == target.height or placed.shown.width == target.width
    if fit == "stretch" and fraction == 1:
        assert placed.cut == Size(height, width)
    if fit == "crop" and fraction == 1:
        assert placed.cut.height == height or placed.cut.width == width


@given(height=SIDES, width=SIDES, target=SIZES, fit=st.sampled_from(FITS))
@settings(max_examples=100, deadline=None)
def test_height_and_width_are_treated_alike(
    height: int, width: int, target: Size, fit: Fit
) -> None:
    placed = window(Size(height, width), target, fit, 0.875)
    turned = window(Size(width, height), Size(target.width, target.height), fit, 0.875)
    assert (turned.cut.width, turned.cut.height) == (placed.cut.height, placed.cut.width)
    assert (turned.shown.width, turned.shown.height) == (placed.shown.height, placed.shown.width)


@pytest.mark.parametrize("fit", FITS)
def test_the_embedded_photos_come_in_the_inputs_shape(fit: Fit) -> None:
    ((pixels, _),) = EmbeddedPhotos(4).batches(replace(WIDE, fit=fit), 4)
    assert pixels.shape == (4, 96, 160, 3)


def test_another_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="fit is 'squash'; choose one of crop, stretch, pad"):
        replace(WIDE, fit="squash")
