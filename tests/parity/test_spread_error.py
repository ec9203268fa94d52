"""The error of classes next to what tells the pictures apart, whatever offset all of them share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from effnet_edge.errors import UsageError
from effnet_edge.parity import Comparison, Gate, ParityResult
from effnet_edge.parity.measures.spread import spread_error, tells_apart
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.pictures.image import Preprocessing

if TYPE_CHECKING:
    from effnet_edge.outputs import OutputKind

PREPROCESSING = Preprocessing(64, 1.0, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def pair(images: int = 40, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    reference = rng.normal(0, 1, (images, classes))
    return reference, reference + rng.normal(0, 0.3, reference.shape)


def compared(
    reference: np.ndarray, candidate: np.ndarray, output: OutputKind = "single-label"
) -> ParityResult:
    comparison = Comparison("b0", "b0-int8", "fp32", "int8", output)
    for part in np.array_split(np.arange(len(reference)), min(3, len(reference))):
        comparison.update(reference[part], candidate[part])
    return comparison.result()


@pytest.mark.parametrize("offset", [0.0, 1e3, np.linspace(-1e3, 1e3, 7)])
@pytest.mark.parametrize("output", ["single-label", "multi-label"])
def test_no_offset_hides_an_error(output: OutputKind, offset: float | np.ndarray) -> None:
    reference, candidate = pair()
    spread = reference - reference.mean(0)
    expected = math.sqrt(np.square(candidate - reference).sum() / np.square(spread).sum())
    found = compared(reference + offset, candidate + offset, output)
    assert found.spread_error == pytest.approx(expected, rel=1e-9)
    assert Gate(max_nrmse=expected * 1.01).judge(found).passed
    assert Gate(max_nrmse=expected * 0.99).check(found)


def test_the_mean_of_the_reference_is_at_one() -> None:
    reference, _ = pair()
    constant = np.broadcast_to(reference.mean(0), reference.shape)
    assert spread_error(reference, constant) == pytest.approx(1.0)


def test_a_constant_has_no_spread() -> None:
    constant = np.full((4, 3), 0.1)
    assert math.isnan(spread_error(constant, constant))
    assert spread_error(constant, constant + 1e-9) == math.inf
    assert math.isnan(spread_error(constant[:1], constant[:1]))


def test_what_is_not_finite_holds_no_limit() -> None:
    reference, candidate = pair()
    candidate[3, 2] = np.nan
    assert not compared(reference, candidate).spread_error < 1e9
    assert any("NaN" in line for line in Gate(max_nrmse=1e9).check(compared(reference, candidate)))


def test_features_have_no_such_limit() -> None:
    result = compared(*pair(), "features")
    assert result.spread_error is None
    with pytest.raises(UsageError, match="features have none: limit the SQNR instead"):
        Gate(max_nrmse=1.0).check(result)


def test_photos_tell_models_apart_and_frames_of_one_do_not() -> None:
    photos = np.concatenate([each for each, _ in EmbeddedPhotos(8).batches(PREPROCESSING, 8)])
    assert tells_apart(photos)
    assert tells_apart(photos[:2])
    assert not tells_apart(photos[:1])
    noise = np.random.default_rng(0).integers(-8, 9, photos.shape)
    assert not tells_apart(np.clip(photos[:1] + noise, 0, 255).astype(np.uint8))
    assert not tells_apart(np.stack([np.roll(photos[0], step, axis=1) for step in range(8)]))
    assert not tells_apart(np.zeros((3, 8, 8, 3), np.uint8))
