"""Pictures of other channels than RGB."""

from __future__ import annotations

import io
import os
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from effnet_edge.errors import ImageError, UsageError
from effnet_edge.model.preprocessing import variant_preprocessing, with_channels
from effnet_edge.model.variants import VARIANTS
from effnet_edge.pictures.decoding import FORMATS
from effnet_edge.pictures.image import (
    Preprocessing,
    crop_and_resize,
    decode,
    normalize,
    picture_extensions,
    prepare,
)
from effnet_edge.pictures.sets import ImageSet

if TYPE_CHECKING:
    from pathlib import Path


def of_channels(channels: int, resolution: int = 12) -> Preprocessing:
    mean = tuple(0.1 + 0.05 * index for index in range(channels))
    return Preprocessing(resolution, 0.875, "bicubic", mean, tuple(0.2 + each for each in mean))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# --- greyscale ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "image_format"),
    [("RGB", "PNG"), ("L", "PNG"), ("1", "PNG"), ("P", "GIF"), ("L", "JPEG"), ("CMYK", "TIFF")],
)
def test_greyscale_is_what_pillow_converts_to(mode: str, image_format: str) -> None:
    file = io.BytesIO()
    Image.fromarray(noise(20, 30, 3)).convert(mode).save(file, image_format)
    expected = Image.open(io.BytesIO(file.getvalue())).convert("L")

    pixels = decode(file.getvalue(), 1)

    np.testing.assert_array_equal(pixels, np.asarray(expected)[:, :, None])


def test_sixteen_bits_and_transparency_become_grey_as_they_become_rgb(tmp_path: Path) -> None:
    Image.fromarray(noise(9, 9).astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    rgba = noise(9, 9, 4)
    rgba[..., :3] = rgba[..., :1]
    Image.fromarray(rgba).save(tmp_path / "glass.png")
    for name in ("sixteen.png", "glass.png"):
        grey, rgb = decode(tmp_path / name, 1), decode(tmp_path / name)
        np.testing.assert_array_equal(grey, rgb[..., :1])


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_arrays_become_grey(shape: tuple[int, ...]) -> None:
    array = noise(*shape)
    image = Image.fromarray(array[..., 0] if shape[2:] == (1,) else array)
    np.testing.assert_array_equal(decode(array, 1)[..., 0], np.asarray(image.convert("L")))


# --- other channels -------------------------------------------------------------------------


@given(
    channels=st.integers(1, 16),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 99),
)
def test_each_band_is_resized_as_if_it_were_alone(
    channels: int, size: tuple[int, int], seed: int
) -> None:
    pixels = noise(*size, channels, seed=seed)
    together = prepare(pixels, of_channels(channels))
    assert together.shape == (12, 12, channels)
    for index in range(channels):
        alone = crop_and_resize(pixels[..., index : index + 1], of_channels(1))
        np.testing.assert_array_equal(together[..., index], alone[..., 0])


@given(st.integers(1, 16), st.integers(0, 99))
def test_normalization_is_per_channel(channels: int, seed: int) -> None:
    batch, preprocessing = noise(2, 4, 5, channels, seed=seed), of_channels(channels)
    normalized = normalize(batch, preprocessing)
    assert normalized.shape == (2, channels, 4, 5)
    for index in range(channels):
        mean, std = preprocessing.mean[index], preprocessing.std[index]
        expected = (batch[..., index] / 255 - mean) / std
        np.testing.assert_allclose(normalized[:, index], expected, atol=1e-5)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
@pytest.mark.parametrize(("mode", "channels"), [("LA", 2), ("RGBA", 4)])
def test_a_picture_of_as_many_bands_is_read_as_it_is(
    mode: str, channels: int, image_format: str
) -> None:
    bands, file = noise(6, 8, channels), io.BytesIO()
    bands[0, 0, -1] = 0  # colours under a transparent pixel are values like any
    Image.fromarray(bands, mode).save(file, image_format)
    np.testing.assert_array_equal(decode(file.getvalue(), channels), bands)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_picture_of_other_bands_is_refused_with_what_to_do(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=rf"a\.tif.*mode {mode}.*4 channels.*\.npy"):
        decode(tmp_path / "a.tif", 4)


# --- NumPy's files --------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_npy_and_npz_files_are_their_arrays(channels: int, tmp_path: Path) -> None:
    array = noise(6, 7, channels)
    np.save(tmp_path / "plain.npy", array)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(array))
    with (tmp_path / "version3.npy").open("wb") as file:
        np.lib.format.write_array(file, array, version=(3, 0))
    np.savez(tmp_path / "zip.npz", array)
    np.savez_compressed(tmp_path / "small.npz", picture=array)
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(decode(path, channels), array, err_msg=path.name)


class Planted:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [False, True])
def test_pickled_objects_are_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    array = np.array([Planted(tmp_path / "owned")], object)
    path = tmp_path / ("evil.npz" if zipped else "evil.npy")
    (np.savez if zipped else np.save)(path, array, allow_pickle=True)
    with pytest.raises(ImageError, match="evil"):
        decode(path, 5)
    assert not (tmp_path / "owned").exists()


def damaged_files(folder: Path) -> list[Path]:
    np.save(folder / "whole.npy", noise(6, 7, 5))
    content = (folder / "whole.npy").read_bytes()
    (folder / "whole.npy").unlink()
    (folder / "empty.npy").touch()
    (folder / "half.npy").write_bytes(content[:150])
    (folder / "text.npy").write_text("not numpy")
    (folder / "header.npy").write_bytes(content[:10] + b"{'descr': (((" + content[23:])
    # A header that promises terabytes, and nothing behind it.
    with (folder / "huge.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6, 5)}
        )
    np.savez(folder / "two.npz", noise(2, 2, 5), noise(2, 2, 5))
    with zipfile.ZipFile(folder / "none.npz", "w"):
        pass
    np.save(folder / "wide.npy", noise(6, 7, 5).astype(np.uint16))
    np.save(folder / "flat.npy", noise(6, 7))
    np.save(folder / "void.npy", noise(0, 7, 5))
    return sorted(folder.iterdir())


def test_wrong_files_are_named_in_one_line(tmp_path: Path) -> None:
    for path in damaged_files(tmp_path):
        with pytest.raises(ImageError) as error:
            decode(path, 5)
        assert path.name in str(error.value)
        assert len(str(error.value).splitlines()) == 1


# --- sets and defaults ----------------------------------------------------------------------


def test_the_channels_tell_which_files_are_pictures(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.tif", "a.npy", "a.npz"):
        (tmp_path / name).touch()

    def names(channels: int) -> set[str]:
        paths = ImageSet.from_folder(tmp_path, channels=channels).paths
        return {path.suffix for path in paths}

    assert names(3) == names(1) == {".jpg", ".png", ".tif"}
    assert names(4) == {".png", ".tif", ".npy", ".npz"}
    assert names(7) == {".npy", ".npz"}
    assert picture_extensions(3) == {each for group in FORMATS.values() for each in group}


def test_a_folder_without_such_pictures_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(UsageError, match=r"no pictures of 7 channels; looked for \.npy, \.npz"):
        ImageSet.from_folder(tmp_path, channels=7)


def test_greyscale_gets_the_average_of_the_colours_normalization() -> None:
    grey = with_channels(variant_preprocessing(VARIANTS["b0"]), 1)
    assert grey.mean == pytest.approx((0.449,))
    assert grey.std == pytest.approx((0.226,))
    centred = with_channels(variant_preprocessing(VARIANTS["lite0"]), 1)
    assert (centred.mean, centred.std) == ((0.5,), (0.5,))


@pytest.mark.parametrize(
    ("channels", "mean", "std", "what"),
    [
        (4, None, None, "4 channels: give --mean with 4 values"),
        (4, (0.5,) * 4, None, "4 channels: give --std with 4 values"),
        (4, (0.5,) * 3, (0.5,) * 4, "--mean has 3 values"),
        (1, (0.5, 0.4, 0.3), None, "takes 1 channel:"),
        (3, None, (0.5,), "--std has 1 value,"),
        (17, (0.5,) * 17, (0.5,) * 17, "1 to 16"),
        (2, (0.5,) * 2, (0.5, 0.0), "above 0"),
    ],
)
def test_values_that_do_not_fit_the_channels_are_refused(
    channels: int, mean: tuple[float, ...], std: tuple[float, ...], what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        with_channels(variant_preprocessing(VARIANTS["b0"]), channels, mean, std)
