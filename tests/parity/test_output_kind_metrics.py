"""Independent labels and features: their measures, gates and reports."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, rel_entr
from sklearn.metrics import accuracy_score, hamming_loss

from effnet_edge.errors import UsageError
from effnet_edge.parity import EXACT_GATES, Comparison, Gate, ParityResult
from effnet_edge.parity.measures import metrics
from effnet_edge.parity.measures.gates import EXACT
from effnet_edge.parity.measures.label_changes import LabelChanges
from effnet_edge.parity.report.document import Circumstances, Examined, build_document, changes
from effnet_edge.parity.report.files import render_html
from effnet_edge.parity.study import study


def pair(seed: int, images: int = 30, labels: int = 7, noise: float = 0.5):
    rng = np.random.default_rng(seed)
    reference = rng.normal(-1, 3, (images, labels)).astype(np.float32)
    return reference, reference + rng.normal(0, noise, reference.shape).astype(np.float32)


def compared(output: str, reference, candidate, ends=(None,)) -> ParityResult:
    comparison = Comparison("torch", "engine", "FP32", "INT8", output)
    start = 0
    for end in ends:
        comparison.update(reference[start:end], candidate[start:end])
        start = end
    return comparison.result("pictures")


@given(st.integers(0, 999), st.sampled_from([0.0, 1e-5, 0.5, 20.0]))
def test_the_divergence_of_independent_labels_is_that_of_their_bernoulli_distributions(seed, noise):
    reference, candidate = pair(seed, noise=noise)
    x, y = reference.astype(float), candidate.astype(float)
    expected = (rel_entr(expit(x), expit(y)) + rel_entr(expit(-x), expit(-y))).mean()
    found = metrics.sigmoid_kl_divergence(reference, candidate)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_the_divergence_is_finite_for_logits_whose_probabilities_are_not():
    far = np.array([[900.0, -900.0]])
    assert metrics.sigmoid_kl_divergence(far, far) == 0
    assert metrics.sigmoid_kl_divergence(far, -far) == pytest.approx(900)
    np.testing.assert_allclose(metrics.sigmoid(far), expit(far))


@given(st.integers(0, 999))
def test_agreement_is_scikit_learns(seed):
    reference, candidate = pair(seed, noise=1.5)
    before, after = expit(reference) >= 0.5, expit(candidate) >= 0.5
    result = compared("multi-label", reference, candidate)
    assert result.label_set_agreement == result.agreement == accuracy_score(before, after)
    assert result.label_agreement == pytest.approx(1 - hamming_loss(before, after))


@given(st.integers(0, 999), st.sets(st.integers(1, 29), max_size=4))
@pytest.mark.parametrize("output", ["multi-label", "features"])
def test_the_split_into_batches_does_not_matter(output, seed, cuts):
    reference, candidate = pair(seed)
    whole = compared(output, reference, candidate)
    parts = compared(output, reference, candidate, (*sorted(cuts), 30))
    for name, value in vars(whole).items():
        expected = pytest.approx(value) if name == "values" else value
        assert getattr(parts, name) == expected, name


def test_only_the_measures_of_the_output_are_given():
    many, none = (compared(output, *pair(1)) for output in ("multi-label", "features"))
    assert (many.top1_agreement, many.top5_agreement) == (None, None)
    assert many.kl == pytest.approx(metrics.sigmoid_kl_divergence(*pair(1)))
    values = (none.kl, none.top1_agreement, none.top5_agreement, none.label_agreement)
    assert values == (None,) * 4
    assert none.sqnr_db == pytest.approx(metrics.sqnr_db(*pair(1)))
    assert metrics.normalized_error(*pair(1)) == pytest.approx(10 ** (-none.sqnr_db / 10))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_agrees_with_nothing_and_passes_no_gate(bad):
    reference, candidate = pair(2)
    candidate[3, 1] = bad
    for output in ("multi-label", "features"):
        result = compared(output, reference, candidate)
        assert result.candidate_nonfinite == 1
        assert EXACT_GATES[output].check(result)
        assert Gate(min_sqnr_db=-1000).check(result)
    assert metrics.label_overlap(reference, candidate)[3] == 0


@pytest.mark.parametrize("output", ["multi-label", "features"])
def test_exact_gates_pass_rounding_and_stop_more(output):
    reference, _ = pair(3, labels=100)
    rounded = reference * np.float32(1 + 1e-6)
    assert EXACT_GATES[output].check(compared(output, reference, rounded)) == []
    assert EXACT_GATES[output].check(compared(output, *pair(3, labels=100, noise=0.05)))
    assert EXACT_GATES["single-label"] == EXACT


def test_gates_name_the_measure_of_independent_labels():
    result = compared("multi-label", *pair(4, noise=3.0))
    gate = Gate(min_agreement=0.99, max_kl=1e-3)
    agreement, kl = gate.check(result)
    assert agreement.startswith("agreement of the set of labels ")
    assert kl.startswith("KL divergence per label ")
    assert "per label ≤ 0.001 nats" in gate.describe("multi-label")
    assert "top-1 agreement" in gate.describe()


@pytest.mark.parametrize("gate", [Gate(max_kl=1.0), Gate(min_agreement=0.5)])
def test_a_gate_on_classes_is_refused_for_features(gate):
    with pytest.raises(UsageError, match="features have none: limit the SQNR"):
        gate.check(compared("features", *pair(5)))


@pytest.mark.parametrize("output", ["multi-label", "features"])
def test_class_labels_are_refused(output):
    comparison = Comparison("torch", "engine", "FP32", "INT8", output)
    with pytest.raises(UsageError, match=output):
        comparison.update(*pair(6), np.zeros(30, int))


@given(st.integers(0, 99), st.integers(1, 29))
def test_label_changes_add_up(seed, cut):
    reference, candidate = pair(seed, noise=2.0)
    whole = LabelChanges.of(reference, candidate)
    parts = [
        LabelChanges.of(reference[part], candidate[part]) for part in (slice(cut), slice(cut, None))
    ]
    joined = LabelChanges.joined(parts)
    assert joined.by_label() == whole.by_label()
    assert joined.changed == 30 - round(30 * metrics.label_set_agreement(reference, candidate))
    before, after = expit(reference) >= 0.5, expit(candidate) >= 0.5
    for row in whole.by_label():
        at = row["class"]
        assert row["lost"] == (before & ~after)[:, at].sum()
        assert (
            row["gained"]
            == (after & ~before)[:, at].sum()
            == row["lost"] + (after[:, at].sum() - before[:, at].sum())
        )


class Answering:
    """A model that has the answers, for pictures that are their own numbers."""

    execution_precision = "FP32"

    def __init__(self, name: str, answers: np.ndarray) -> None:
        self.name = name
        self.answers = answers

    def infer(self, batch: np.ndarray) -> np.ndarray:
        return self.answers[batch[:, 0, 0, 0]]


class Numbered:
    source = "numbered pictures"

    def __len__(self) -> int:
        return 30

    def batches(self, _preprocessing, batch_size, _skipped=None, _outcomes=None):
        numbers = np.arange(30, dtype=np.uint8)[:, None, None, None]
        for start in range(0, 30, batch_size):
            yield numbers[start : start + batch_size].repeat(1, 3), None


@pytest.mark.parametrize("output", ["multi-label", "features", "regression"])
def test_the_report_shows_what_the_output_has(output):
    reference, candidate = pair(7, noise=1.0)
    models = [Answering("near", candidate), Answering("same", reference)]
    studies = study(Answering("torch", reference), models, Numbered(), None, output=output)
    examined = [Examined(each, Gate().judge(each.result)) for each in studies]
    names = [f"label {index}" for index in range(7)]
    document = build_document(examined, Circumstances("effnet-edge parity", "none", names))
    near, same = document["candidates"]
    page = render_html(document)

    assert document["output"] == output
    assert near["calibration_error"] is None
    assert "top-1" not in page
    assert "is the drop real" not in page
    if output == "multi-label":
        assert near["flipped"] == sum(~metrics.label_set_matches(reference, candidate))
        assert (same["flipped"], same["by_class"]) == (0, [])
        assert near["by_class"][0]["label"].startswith("label ")
        assert "KL divergence per label" in page
    elif output == "regression":
        assert [row["label"] for row in near["by_output"]] == names
        assert (len(near["differences"]), same["differences"]) == (12, [])
        assert "near: an error of " in page
        assert "same: the same as torch but for rounding" in page
    else:
        assert near["flipped"] is None
        assert "Features" in page
    assert changes(document, document) == []
    moved = replace(studies[0], result=replace(studies[1].result, candidate="near"))
    other = build_document(
        [Examined(moved, examined[0].verdict), examined[1]],
        Circumstances("effnet-edge parity", "none", names),
    )
    told = changes(document, other)
    assert any(line.startswith("near: SQNR") for line in told)
    assert not any("top-1" in line for line in told)


def test_a_set_of_labels_with_a_nan_is_another_set() -> None:
    reference = np.array([[3.0, -3.0], [3.0, 3.0], [-3.0, -3.0]])
    candidate = reference.copy()
    candidate[1, 1] = candidate[2, 0] = np.nan

    changes = LabelChanges.of(reference, candidate)

    assert changes.changed == 2
    assert changes.lost.tolist() == [1, 1]
    assert LabelChanges.of(candidate, candidate).changed == 2
