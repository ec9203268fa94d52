"""Classes out of logits, for classes that exclude each other and for those that do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, softmax
from tiny_bundles import CLASSES, LABELS, SIDE, tiny_model, write_bundle

from effnet_edge.bundle import OutputSpec
from effnet_edge.errors import NotFiniteError, UsageError
from effnet_edge.labels import Label
from effnet_edge.parity.measures.metrics import given_labels
from effnet_edge.pictures.image import prepare
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.predictions import Classes, Values

if TYPE_CHECKING:
    from pathlib import Path

LOGITS = arrays(np.float32, st.integers(1, 30), elements=st.floats(-100, 100, width=32))


def test_a_probability_that_is_the_threshold_is_given_here_as_in_a_comparison() -> None:
    logits = np.array([[0.0, -0.0, -1e-6, 1e-6]], np.float32)
    found = Classes("multi-label", None).of(logits[0])
    assert sorted(each.index for each in found) == [0, 1, 3]
    assert list(np.flatnonzero(given_labels(logits)[0])) == [0, 1, 3]


@given(LOGITS, st.floats(0, 1))
def test_independent_classes_are_those_at_or_above_the_threshold(
    logits: np.ndarray, threshold: float
) -> None:
    found = Classes("multi-label", None, threshold=threshold).of(logits)
    expected = expit(logits.astype(np.float64))
    far = np.abs(expected - threshold) > 1e-9
    given_labels = {each.index for each in found}
    assert {int(i) for i in np.flatnonzero((expected >= threshold) & far)} <= given_labels
    assert given_labels.isdisjoint(int(i) for i in np.flatnonzero((expected < threshold) & far))
    for each in found:
        assert each.probability == pytest.approx(expected[each.index])
    shares = [each.probability for each in found]
    assert shares == sorted(shares, reverse=True)


@given(LOGITS, st.integers(1, 40))
def test_excluding_classes_are_the_top_by_softmax(logits: np.ndarray, top: int) -> None:
    found = Classes("single-label", None, top).of(logits)
    assert len(found) == min(top, len(logits))
    expected = softmax(logits.astype(np.float64))
    assert [each.probability for each in found] == pytest.approx(sorted(expected)[::-1][:top])
    assert len(Classes("single-label", None).of(logits)) == min(5, len(logits))


def test_top_limits_independent_classes_and_names_are_theirs() -> None:
    labels = (Label("cat", None), Label("dog", "n1"), Label("sofa", None))
    logits = np.array([2.0, 5.0, -3.0], np.float32)
    found = Classes("multi-label", labels).of(logits)
    assert [(each.label, each.wnid) for each in found] == [("dog", "n1"), ("cat", None)]
    assert [each.label for each in Classes("multi-label", labels, top=1).of(logits)] == ["dog"]
    assert Classes("multi-label", labels).of(logits - 9) == []


@pytest.mark.parametrize(
    ("kind", "options", "what"),
    [
        ("single-label", {"top": 0}, "top 0: needs a whole number of 1 or more"),
        ("single-label", {"top": "3"}, "top '3': needs a whole number"),
        ("multi-label", {"top": 2.5}, "top 2.5: needs a whole number"),
        ("multi-label", {"threshold": "high"}, "threshold 'high': needs a number"),
        ("single-label", {"threshold": 0.5}, "multi-label"),
        ("multi-label", {"threshold": 1.5}, "needs a number of 0 to 1"),
        ("multi-label", {"threshold": float("nan")}, "needs a number of 0 to 1"),
        ("features", {}, "no classes"),
        ("regression", {}, "no classes: use EngineRunner.estimate"),
    ],
)
def test_what_does_not_go_with_the_bundle_is_refused(
    kind: str, options: dict[str, float], what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        Classes(kind, None, **options)


def test_a_bundle_tells_the_runner_its_kind(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    output = OutputSpec("logits", CLASSES, "multi-label")
    path = write_bundle(tmp_path / "many", "onnxruntime", tiny_model(), output=output)
    with EngineRunner.load(path) as runner:
        pixels = prepare(image, runner.manifest.preprocessing)
        expected = expit(runner.infer(pixels[None])[0].astype(np.float64))
        found = runner.classify(image, threshold=0.0)
    assert {each.index: each.probability for each in found} == pytest.approx(
        dict(enumerate(expected))
    )
    assert {each.label for each in found} == {label.name for label in LABELS}


def test_values_are_given_as_they_are() -> None:
    values = np.array([-3.5, 1e6], np.float32)
    found = Values("regression", 2, (Label("x", None), Label("y", None))).of(values)
    assert [(each.index, each.label, each.value) for each in found] == [
        (0, "x", -3.5),
        (1, "y", 1e6),
    ]
    assert [each.label for each in Values("regression", 2, None).of(values)] == [
        "value_0",
        "value_1",
    ]
    with pytest.raises(NotFiniteError, match="1 of 2 values"):
        Values("regression", 2, None).of(np.array([np.nan, 1], np.float32))
    for kind, instead in (("features", "infer"), ("single-label", "classify")):
        with pytest.raises(UsageError, match=f"use EngineRunner.{instead}"):
            Values(kind, 2, None)


def test_a_single_label_has_its_own_probability() -> None:
    for logit in (2.0, -2.0):
        (found,) = Classes("multi-label", None, threshold=0).of(np.array([logit], np.float32))
        assert found.probability == pytest.approx(expit(logit))


def test_a_runner_estimates_one_picture_or_several(tmp_path: Path) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8))
    output = OutputSpec("logits", CLASSES, "regression")
    path = write_bundle(tmp_path / "values", "onnxruntime", tiny_model(), output=output)
    with EngineRunner.load(path) as runner:
        pixels = np.stack([prepare(image, runner.manifest.preprocessing) for image in images])
        expected = runner.infer(pixels)
        found = runner.estimate(images)
        assert [[each.value for each in row] for row in found] == expected.tolist()
        assert [each.label for each in runner.estimate(images[0])] == [each.name for each in LABELS]
        with pytest.raises(UsageError, match="EngineRunner.estimate"):
            runner.classify(images[0])
