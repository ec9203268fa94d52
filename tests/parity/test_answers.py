"""Flipped pictures and breakdowns, against sums done by hand or by scikit-learn."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from effnet_edge.parity.comparison import Comparison
from effnet_edge.parity.measures.answers import SHOWN_FLIPS, Answers, FlipCollector


def logits(images: int, classes: int = 7, noise: float = 1.0, seed: int = 0):
    random = np.random.default_rng(seed)
    reference = random.normal(0, 3, (images, classes)).astype(np.float32)
    candidate = reference + random.normal(0, noise, reference.shape).astype(np.float32)
    return reference, candidate, random.integers(0, classes, images)


def test_batches_joined_are_the_answers_to_all() -> None:
    reference, candidate, labels = logits(50)
    whole = Answers.of(reference, candidate, labels)
    cuts = [slice(0, 20), slice(20, 21), slice(21, 50)]

    joined = Answers.joined([Answers.of(reference[c], candidate[c], labels[c]) for c in cuts])

    for name in ("reference", "candidate", "reference_confidence", "labels"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


def test_classes_count_as_in_the_confusion_matrices() -> None:
    reference, candidate, labels = logits(300)
    answers = Answers.of(reference, candidate, labels)
    before, after = (
        np.diag(confusion_matrix(labels, each, labels=range(7)))
        for each in (reference.argmax(1), candidate.argmax(1))
    )

    rows = answers.by_class()

    for row in rows:
        assert row["lost"] - row["gained"] == before[row["class"]] - after[row["class"]]
        assert row["images"] == np.sum(labels == row["class"])
    assert [row["gained"] - row["lost"] for row in rows] == sorted(
        row["gained"] - row["lost"] for row in rows
    )
    unchanged = set(range(7)) - {row["class"] for row in rows}
    assert all(before[index] == after[index] for index in unchanged)


def test_ranges_of_confidence_hold_every_picture_once() -> None:
    reference, candidate, labels = logits(300)
    rows = Answers.of(reference, candidate, labels).by_confidence()

    assert sum(row["images"] for row in rows) == 300
    right = sum(row["images"] * row.get("candidate_right", 0) for row in rows)
    assert right == pytest.approx(np.sum(candidate.argmax(1) == labels))


def test_without_labels_the_reference_is_the_truth() -> None:
    reference, candidate, _ = logits(40)
    answers = Answers.of(reference, candidate, None)

    assert answers.by_class() == []
    assert set(answers.calibration_errors()) == {"candidate"}
    np.testing.assert_array_equal(answers.truth, reference.argmax(1))


def test_the_surest_flips_are_kept_whatever_the_batches() -> None:
    reference, candidate, labels = logits(400, noise=6.0)
    pixels = np.random.default_rng(1).integers(0, 256, (400, 8, 8, 3), np.uint8)
    whole = Answers.of(reference, candidate, labels)
    collector = FlipCollector()
    for start in range(0, 400, 30):
        part = slice(start, start + 30)
        collector.add(pixels[part], Answers.of(reference[part], candidate[part], labels[part]))

    flips = collector.flips()

    assert len(whole.flipped()) > SHOWN_FLIPS
    assert [flip.picture for flip in flips] == list(whole.flipped()[:SHOWN_FLIPS])
    assert all(flip.label == labels[flip.picture] for flip in flips)
    shown = Image.open(io.BytesIO(base64.b64decode(flips[0].thumbnail)))
    assert (shown.format, shown.size) == ("JPEG", (8, 8))


def test_equal_models_flip_nothing() -> None:
    reference, _, labels = logits(20)

    assert len(Answers.of(reference, reference, labels).flipped()) == 0


def with_nan(rows: np.ndarray, *pictures: int) -> np.ndarray:
    """A NaN beside the best class of these pictures, which stays the largest number."""
    changed = rows.copy()
    changed[pictures, changed[list(pictures)].argmin(1)] = np.nan
    return changed


def test_an_answer_with_a_nan_is_another_in_all_that_is_counted() -> None:
    reference, _, _ = logits(40)
    labels = reference.argmax(1)
    candidate = with_nan(reference, 5)
    comparison = Comparison("a", "b", "", "")
    comparison.update(reference, candidate, labels)
    answers = Answers.of(reference, candidate, labels)

    rows = answers.by_confidence()
    agreeing = sum(row["images"] * row["agreement"] for row in rows if row["images"])
    assert comparison.result().top1_agreement == pytest.approx(39 / 40)
    assert agreeing == pytest.approx(39)
    assert answers.flipped().tolist() == [5]
    (changed,) = answers.by_class()
    assert (changed["class"], changed["lost"]) == (labels[5], 1)
    assert comparison.result().accuracy.top1.lost == 1
    collector = FlipCollector()
    collector.add(np.zeros((40, 8, 8, 3), np.uint8), answers)
    (flip,) = collector.flips()
    assert (flip.candidate, flip.candidate_confidence) == (None, 0.0)


def test_two_answers_with_a_nan_do_not_agree() -> None:
    reference, _, _ = logits(40)
    broken = with_nan(reference, 3)

    answers = Answers.of(broken, broken, None)

    assert answers.flipped().tolist() == [3]
    sound = Answers.of(np.delete(reference, 3, 0), np.delete(reference, 3, 0), None)
    expected = sound.calibration_errors()["candidate"] * 39 / 40
    assert answers.calibration_errors()["candidate"] == pytest.approx(expected)
