from __future__ import annotations

import json
import math
import tracemalloc
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.parity import AccuracyDrop, Comparison, ParityResult, compare
from effnet_edge.parity.measures import metrics
from effnet_edge.parity.measures.accuracy import accuracy_drop
from effnet_edge.pictures.image import Preprocessing, prepare
from effnet_edge.pictures.sets import ImageSet

if TYPE_CHECKING:
    from pathlib import Path

SMALL = Preprocessing(
    resolution=16,
    crop_fraction=0.875,
    interpolation="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)

MEASURES = {
    "max_abs_error": metrics.max_abs_error,
    "mean_abs_error": metrics.mean_abs_error,
    "relative_error": metrics.relative_error,
    "sqnr_db": metrics.sqnr_db,
    "cosine": metrics.cosine,
    "kl": metrics.kl_divergence,
    "top1_agreement": metrics.top1_agreement,
    "top5_agreement": metrics.top5_agreement,
}


def comparison() -> Comparison:
    return Comparison("b0-torch", "b0-int8", "fp32", "int8")


def logits_and_labels(seed: int, images: int, classes: int = 12, noise: float = 0.8):
    rng = np.random.default_rng(seed)
    reference = rng.normal(0, 3, (images, classes)).astype(np.float32)
    candidate = reference + rng.normal(0, noise, reference.shape).astype(np.float32)
    return reference, candidate, rng.integers(0, classes, images)


@st.composite
def splits(draw: st.DrawFn) -> tuple[int, list[int]]:
    images = draw(st.integers(1, 40))
    cuts = draw(st.sets(st.integers(1, images), max_size=images))
    return images, sorted(cuts | {images})


def stream(arrays, ends: list[int]) -> ParityResult:
    streamed = comparison()
    for start, end in zip([0, *ends], ends, strict=False):
        streamed.update(*(array[start:end] for array in arrays))
    return streamed.result()


@given(splits(), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-6, 0.8, 30.0]))
def test_however_the_images_are_split_the_result_is_the_one_shot_measures(split, seed, noise):
    images, ends = split
    reference, candidate, labels = logits_and_labels(seed, images, noise=noise)
    result = stream((reference, candidate, labels), ends)
    for name, measure in MEASURES.items():
        expected = measure(reference, candidate)
        assert getattr(result, name) == pytest.approx(expected, rel=1e-9, abs=1e-12), name
    assert result.accuracy == accuracy_drop(reference, candidate, labels)
    assert (result.images, result.classes) == (images, 12)


@given(splits(), st.integers(0, 39), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_logit_that_is_not_finite_stays_visible_in_any_split(split, at, bad):
    images, ends = split
    reference, candidate, labels = logits_and_labels(1, images)
    candidate[at % images, 2] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = stream((reference, candidate, labels), ends)
    assert (result.reference_nonfinite, result.candidate_nonfinite) == (0, 1)
    assert not math.isfinite(result.max_abs_error)
    assert not result.relative_error <= 1e9
    assert not result.sqnr_db >= -1e9
    assert not result.kl <= 1e9
    assert result.top1_agreement == pytest.approx(metrics.top1_agreement(reference, candidate))


def test_a_reference_that_is_not_finite_is_counted_as_such():
    reference, candidate, _ = logits_and_labels(2, 10)
    reference[[3, 4], 0] = math.nan
    result = stream((reference, candidate), [5, 10])
    assert (result.reference_nonfinite, result.candidate_nonfinite) == (2, 0)
    assert math.isnan(result.relative_error)


def test_memory_does_not_grow_with_the_images():
    reference, candidate, labels = logits_and_labels(3, 64, classes=1000)
    streamed = comparison()
    streamed.update(reference, candidate, labels)
    tracemalloc.start()
    try:
        for _ in range(30):
            streamed.update(reference, candidate, labels)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < reference.nbytes


def test_different_class_counts_are_an_error_that_names_both_models():
    with pytest.raises(UsageError, match="b0-torch has 1000 classes but b0-int8 has 10"):
        comparison().update(np.zeros((2, 1000)), np.zeros((2, 10)))


def test_a_label_that_is_no_class_of_the_models_is_refused():
    with pytest.raises(UsageError, match="label 12 is outside the model's 12 classes"):
        comparison().update(*logits_and_labels(4, 3)[:2], [0, 12, 1])


def test_labels_for_only_some_batches_are_refused():
    reference, candidate, labels = logits_and_labels(5, 4)
    for first, second in ((labels, None), (None, labels)):
        streamed = comparison()
        streamed.update(reference, candidate, first)
        with pytest.raises(ValueError, match="labels with every batch or with none"):
            streamed.update(reference, candidate, second)


def test_batches_that_are_no_batches_are_refused():
    for shapes in (((2, 3), (1, 3)), ((3,), (3,)), ((0, 3), (0, 3))):
        with pytest.raises(ValueError, match="logits must be two"):
            comparison().update(*map(np.zeros, shapes))


def test_no_images_give_no_result():
    with pytest.raises(UsageError, match="there are no pictures to compare on"):
        comparison().result()


def test_the_dictionary_is_strict_json():
    reference, candidate, labels = logits_and_labels(6, 30)
    result = stream((reference, candidate, labels), [30])
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    for name in MEASURES:
        assert told[name] == getattr(result, name)
    assert told["reference"] == "b0-torch"
    assert told["candidate_precision"] == "int8"
    assert isinstance(result.accuracy, AccuracyDrop)
    assert told["accuracy"] == result.accuracy.to_dict()


def test_what_is_not_finite_is_told_apart_from_what_was_not_measured():
    reference, candidate, _ = logits_and_labels(7, 4)
    told = stream((reference, reference), [4]).to_dict()
    assert told["sqnr_db"] == "Infinity"
    assert told["accuracy"] is None
    assert told["top1_drop"] is None

    candidate[0] = math.nan
    told = stream((reference, candidate), [4]).to_dict()
    json.dumps(told, allow_nan=False)
    assert told["kl"] == told["sqnr_db"] == "NaN"
    assert told["candidate_nonfinite"] == 1


class Linear:
    """A classifier that anyone can recompute: logits = mean colour · weights."""

    def __init__(self, name: str, weights: np.ndarray, execution_precision: str = "fp32") -> None:
        self.name = name
        self.weights = weights
        self.execution_precision = execution_precision
        self.seen: list[np.ndarray] = []

    def infer(self, batch: np.ndarray) -> np.ndarray:
        self.seen.append(batch.copy())
        return (batch.mean(axis=(1, 2)) @ self.weights).astype(np.float32)


def linear_pair(classes: int = 6) -> tuple[Linear, Linear]:
    weights = np.random.default_rng(8).normal(size=(3, classes))
    reference = Linear("b0-torch", weights)
    return reference, Linear("b0-int8", np.round(weights, 1), execution_precision="int8")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(9)
    paths = []
    for index in range(7):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(paths[-1])
    return paths


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_both_models_see_the_same_pixels_of_every_image(photos, batch_size):
    labels = (0, 1, 2, 3, 4, 5, 0)
    reference, candidate = linear_pair()
    result = compare(
        reference,
        candidate,
        ImageSet(tuple(photos), labels, "seven photos"),
        SMALL,
        batch_size=batch_size,
    )
    pixels = np.stack([prepare(path, SMALL) for path in photos])
    for model in (reference, candidate):
        assert max(map(len, model.seen)) <= batch_size
        np.testing.assert_array_equal(np.concatenate(model.seen), pixels)
    expected = reference.infer(pixels), candidate.infer(pixels)
    assert result.sqnr_db == pytest.approx(metrics.sqnr_db(*expected))
    assert result.accuracy == accuracy_drop(*expected, labels)
    assert (result.reference, result.candidate) == ("b0-torch", "b0-int8")
    assert (result.reference_precision, result.candidate_precision) == ("fp32", "int8")
    assert (result.images, result.image_source, result.skipped) == (7, "seven photos", ())


def test_images_that_cannot_be_read_are_left_out_and_listed(photos):
    photos[2].write_bytes(b"no picture")
    labels = (0, 1, 2, 3, 4, 5, 0)
    reference, candidate = linear_pair()
    result = compare(reference, candidate, ImageSet(tuple(photos), labels, "photos"), SMALL)
    assert result.images == 6
    assert len(result.skipped) == 1
    assert str(photos[2]) in result.skipped[0]
    assert result.to_dict()["skipped"] == list(result.skipped)
    kept = [index for index in range(7) if index != 2]
    pixels = np.stack([prepare(photos[index], SMALL) for index in kept])
    assert result.accuracy == accuracy_drop(
        reference.infer(pixels), candidate.infer(pixels), [labels[index] for index in kept]
    )


def test_a_set_of_which_nothing_can_be_read_is_an_error(photos):
    for path in photos:
        path.write_bytes(b"no picture")
    with pytest.raises(UsageError, match="none of the 7 pictures in holiday can be read"):
        compare(*linear_pair(), ImageSet(tuple(photos), None, "holiday"), SMALL)


def test_an_empty_set_is_an_error():
    with pytest.raises(UsageError, match="there are no pictures in nowhere"):
        compare(*linear_pair(), ImageSet((), None, "nowhere"), SMALL)


def test_unlabelled_images_give_no_accuracy(photos):
    result = compare(*linear_pair(), ImageSet(tuple(photos), None, "photos"), SMALL)
    assert result.accuracy is None
    assert result.top1_agreement > 0


def test_models_of_different_classes_are_refused(photos):
    reference, _ = linear_pair(6)
    _, candidate = linear_pair(4)
    with pytest.raises(UsageError, match="b0-torch has 6 classes but b0-int8 has 4"):
        compare(reference, candidate, ImageSet(tuple(photos), None, "photos"), SMALL)


def test_a_model_that_does_not_answer_every_image_is_named(photos):
    reference, candidate = linear_pair()
    candidate.infer = lambda _: np.zeros((1, 6), np.float32)
    with pytest.raises(BackendError, match=r"b0-int8 answered 7 images with .* \(1, 6\)"):
        compare(reference, candidate, ImageSet(tuple(photos), None, "photos"), SMALL)


def test_progress_counts_the_images_done_and_ends_at_all_of_them(photos):
    photos[0].write_bytes(b"no picture")
    calls: list[tuple[int, int]] = []
    compare(
        *linear_pair(),
        ImageSet(tuple(photos), None, "photos"),
        SMALL,
        batch_size=4,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(5, 7), (7, 7)]
