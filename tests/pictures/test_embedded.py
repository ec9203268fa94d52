"""The photos that come with scikit-image and scikit-learn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from effnet_edge.errors import UsageError
from effnet_edge.model.preprocessing import variant_preprocessing
from effnet_edge.model.variants import VARIANTS
from effnet_edge.pictures.embedded import PHOTOGRAPHS, EmbeddedPhotos, embedded_photographs
from effnet_edge.pictures.image import decode

PREPROCESSING = variant_preprocessing(VARIANTS["b0"], 64)


def all_pixels(photos: EmbeddedPhotos, batch_size: int = 5) -> np.ndarray:
    return np.concatenate([pixels for pixels, _ in photos.batches(PREPROCESSING, batch_size)])


def test_crops_have_the_networks_input_shape_and_all_differ() -> None:
    pixels = all_pixels(EmbeddedPhotos(20))

    assert pixels.shape == (20, 64, 64, 3)
    assert pixels.dtype == np.uint8
    assert len({crop.tobytes() for crop in pixels}) == 20


def test_the_same_seed_gives_the_same_crops_however_they_are_batched() -> None:
    np.testing.assert_array_equal(
        all_pixels(EmbeddedPhotos(9), batch_size=2), all_pixels(EmbeddedPhotos(9), batch_size=9)
    )
    assert not np.array_equal(all_pixels(EmbeddedPhotos(9)), all_pixels(EmbeddedPhotos(9, seed=1)))


def test_they_are_photographs_with_detail_and_no_noise() -> None:
    for crop in all_pixels(EmbeddedPhotos(32)).astype(float):
        neighbours = np.corrcoef(crop[:, :-1].ravel(), crop[:, 1:].ravel())[0, 1]
        assert crop.std() > 3
        assert neighbours > 0.15, "independent noise has 0"


def test_every_photograph_is_there_and_found_without_importing_its_library() -> None:
    assert len(embedded_photographs()) == sum(len(names) for _, names in PHOTOGRAPHS.values())
    for path in embedded_photographs():
        assert decode(path).shape[2] == 3
    code = (
        "import sys; from effnet_edge.pictures.embedded import embedded_photographs as f; f(); "
        "assert not {'skimage', 'sklearn', 'scipy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_library_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(UsageError, match="skimage, which is not installed: pip install"):
        list(EmbeddedPhotos(2).batches(PREPROCESSING, 2))
