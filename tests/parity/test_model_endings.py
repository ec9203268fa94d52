"""A softmax or a sigmoid at the end of a model file is seen, told, and taken for what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from foreign_models import CLASSES, FORMATS, Foreign, opened, some_pixels, true_logits, written

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.parity.batch_sizes import BatchSizeCheck
from effnet_edge.parity.comparison import Comparison
from effnet_edge.parity.inside.bisection import find_faults
from effnet_edge.parity.measures.metrics import log_softmax, sigmoid, softmax
from effnet_edge.parity.models.ending import WayOut, ending_of
from effnet_export.said import Said

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path


ENDINGS = {
    ("Softmax",): softmax,
    ("LogSoftmax",): softmax,
    ("Softmax", "Log"): softmax,
    ("4d", "Softmax"): softmax,
    ("Softmax", "Identity"): softmax,
    ("Sigmoid",): sigmoid,
}


@pytest.mark.parametrize("file_name", FORMATS)
@pytest.mark.parametrize("end", ENDINGS, ids=" ".join)
def test_what_a_model_ends_in_is_told_and_turned_back_into_logits(
    end: tuple[str, ...], file_name: str, tmp_path: Path, stack: ExitStack
) -> None:
    models = opened(stack, Foreign(end=end).saved(tmp_path / file_name))
    share, pixels = ENDINGS[end], some_pixels()

    found = share(models.reference.infer(pixels))

    np.testing.assert_allclose(found, share(true_logits(pixels)), rtol=1e-4, atol=1e-6)
    assert models.as_probabilities
    assert models.output_kind == ("multi-label" if "Sigmoid" in end else "single-label")
    (file,) = models.files
    assert (
        f"{file_name} ends in a {file.ending}: all models are compared as probabilities"
        in (file.to_dict()["told"])
    )


def test_a_softmax_in_single_steps_is_one(tmp_path: Path, stack: ExitStack) -> None:
    model = Foreign().model()
    for operator, inputs, output in (
        ("ReduceMax", ["flat"], "most"),
        ("Sub", ["flat", "most"], "less"),
        ("Exp", ["less"], "powers"),
        ("ReduceSum", ["powers", "axis"], "sum"),
        ("Div", ["powers", "sum"], "shares"),
    ):
        axes = {"axes": [1]} if operator == "ReduceMax" else {}
        model.graph.node.append(onnx.helper.make_node(operator, inputs, [output], **axes))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axis"))
    model.graph.output[0].name = "shares"
    onnx.save(model, tmp_path / "model.onnx")

    models = opened(stack, tmp_path / "model.onnx")

    assert models.files[0].ending == "softmax"
    expected = log_softmax(true_logits(some_pixels()))
    np.testing.assert_allclose(models.reference.infer(some_pixels()), expected, atol=2e-5)


def test_probabilities_and_logits_are_compared_as_probabilities(
    tmp_path: Path, stack: ExitStack
) -> None:
    plain = Foreign().saved(tmp_path / "plain.onnx")
    shares = Foreign(end=("Softmax",)).saved(tmp_path / "shares.onnx")
    models = opened(stack, plain, shares)
    pixels = some_pixels()
    comparison = Comparison("a", "b", "", "", as_probabilities=models.as_probabilities)

    comparison.update(models.reference.infer(pixels), models.candidates[0].infer(pixels))

    result = comparison.result()
    assert result.sqnr_db > 100
    assert result.kl < 1e-10
    assert result.max_abs_error < 1e-6
    assert result.top1_agreement == 1


def test_measures_of_probabilities_are_those_of_the_probabilities() -> None:
    random = np.random.default_rng(2)
    reference, candidate = random.normal(size=(2, 7, 4)) * 3
    results = []
    for output, share in (("single-label", softmax), ("multi-label", sigmoid)):
        comparison = Comparison("a", "b", "", "", output, as_probabilities=True)
        comparison.update(reference[:3], candidate[:3])
        comparison.update(reference[3:], candidate[3:])
        results.append(comparison.result())
        p, q = share(reference), share(candidate)
        assert results[-1].max_abs_error == pytest.approx(np.abs(p - q).max())
        assert results[-1].sqnr_db == pytest.approx(
            10 * np.log10((p**2).sum() / ((p - q) ** 2).sum())
        )
    p, q = softmax(reference), softmax(candidate)
    assert results[0].kl == pytest.approx((p * np.log(p / q)).sum(1).mean())


def test_a_probability_that_was_rounded_to_zero_costs_as_little_as_it_is(
    tmp_path: Path, stack: ExitStack
) -> None:
    """A softmax in FP16 knows nothing below 6e-8; the divergence stays finite and small."""
    half = Foreign("float16", end=("Mul",)).model()
    half.graph.node[-1].input.append("ten")
    half.graph.node.append(onnx.helper.make_node("Softmax", ["end0"], ["shares"], axis=1))
    half.graph.initializer.append(onnx.numpy_helper.from_array(np.float16(30), "ten"))
    half.graph.output[0].name = "shares"
    onnx.save(half, tmp_path / "half.onnx")
    models = opened(stack, tmp_path / "half.onnx")
    pixels = some_pixels()

    answers = models.reference.infer(pixels)
    comparison = Comparison("a", "b", "", "", as_probabilities=True)
    comparison.update(30 * true_logits(pixels), answers)

    assert np.isfinite(answers).all()
    assert softmax(30 * true_logits(pixels)).min() < 1e-8
    result = comparison.result()
    assert result.kl < 0.05
    assert result.candidate_nonfinite == 0


def test_batch_sizes_of_probabilities_are_compared_as_probabilities() -> None:
    """Two answers whose logits are far apart and whose probabilities are the same."""
    answers = np.array([[0.0, -30.0, -60.0]], np.float32)

    class Model:
        name, execution_precision = "m", "FP32"

        def infer(self, batch: np.ndarray) -> np.ndarray:
            rows = np.repeat(answers, len(batch), axis=0)
            rows[:, 2] -= 30.0 if len(batch) == 2 else 0.0
            return rows

    pixels = np.zeros((1, 4, 4, 3), np.uint8)
    for as_probabilities in (True, False):
        check = BatchSizeCheck(pixels, answers, as_probabilities=as_probabilities)
        found = check.run(Model(), [1, 2], 15.0)
        assert any(each.failures for each in found) is not as_probabilities


def test_no_node_before_a_softmax_is_at_fault_for_it(tmp_path: Path, stack: ExitStack) -> None:
    plain, shares = Foreign(), Foreign(end=("4d", "Softmax", "Flatten"))
    models = opened(stack, plain.saved(tmp_path / "a.onnx"), shares.saved(tmp_path / "b.onnx"))

    found = find_faults(*models.layer_pair(0), some_pixels(2))

    assert found.nodes >= 4
    assert not found.faults


def test_layers_of_a_model_with_a_softmax_are_compared_up_to_its_logits(
    tmp_path: Path, stack: ExitStack
) -> None:
    plain = Foreign().saved(tmp_path / "plain.onnx")
    for name in FORMATS:
        ended = Foreign(end=("4d", "Softmax")).saved(tmp_path / name)
        models = opened(stack, plain, ended, precision="fp32")
        pixels = some_pixels()
        expected, found = (
            each.activations(pixels, ["logits"])["logits"] for each in models.layer_pair(0)
        )
        np.testing.assert_allclose(expected, found, atol=2e-5)


BEHIND = {"Clip": ("least", "most"), "Mul": ("nearly_one",), "Max": ("least",)}


def behind(end: str, operator: str, order: np.ndarray | None = None) -> onnx.ModelProto:
    """A model whose probabilities go through one more operator, of classes in another order."""
    whole = Foreign(end=("Identity", end)).model()
    whole.graph.output[0].name = "last"
    nodes, constants = whole.graph.node, whole.graph.initializer
    constants.extend(
        onnx.numpy_helper.from_array(np.float32(value), name)
        for name, value in (("least", 1e-6), ("most", 1 - 1e-6), ("nearly_one", 0.9999))
    )
    if order is not None:
        nodes[-2].CopyFrom(
            onnx.helper.make_node("Gather", ["flat", "order"], nodes[-2].output, axis=1)
        )
        constants.append(onnx.numpy_helper.from_array(order, "order"))
    read = [nodes[-1].output[0], *BEHIND[operator]]
    nodes.append(onnx.helper.make_node(operator, read, ["last"]))
    return whole


@pytest.mark.parametrize("operator", BEHIND)
@pytest.mark.parametrize("file_name", FORMATS)
@pytest.mark.parametrize(("end", "share"), [("Softmax", softmax), ("Sigmoid", sigmoid)])
def test_an_ending_that_no_graph_shows_is_seen_by_the_answers(
    end: str, share, file_name: str, operator: str, tmp_path: Path, stack: ExitStack
) -> None:
    models = opened(stack, written(behind(end, operator), tmp_path / file_name), precision="fp32")
    pixels = some_pixels()

    assert models.as_probabilities
    assert models.output_kind == ("multi-label" if end == "Sigmoid" else "single-label")
    assert "by its answers" in models.files[0].to_dict()["told"][-1]
    found = share(models.reference.infer(pixels))
    np.testing.assert_allclose(found, share(true_logits(pixels)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("operator", BEHIND)
@pytest.mark.parametrize("end", ["Softmax", "Sigmoid"])
def test_classes_in_another_order_behind_an_unseen_ending_do_not_pass(
    end: str, operator: str, tmp_path: Path, stack: ExitStack
) -> None:
    one = written(behind(end, operator), tmp_path / "one.onnx")
    order = np.roll(np.arange(CLASSES), 1)
    other = written(behind(end, operator, order), tmp_path / "other.onnx")
    models = opened(stack, one, other)
    pixels = some_pixels()
    comparison = Comparison(
        "a", "b", "", "", models.output_kind, as_probabilities=models.as_probabilities
    )

    comparison.update(models.reference.infer(pixels), models.candidates[0].infer(pixels))

    assert comparison.result().kl > 0.05
    assert comparison.result().agreement < 0.5


@pytest.mark.parametrize("file_name", FORMATS)
def test_layers_before_an_ending_that_no_graph_shows_are_compared(
    file_name: str, tmp_path: Path, stack: ExitStack
) -> None:
    plain = Foreign().saved(tmp_path / "plain.onnx")
    ended = written(behind("Softmax", "Clip"), tmp_path / file_name)
    models = opened(stack, plain, ended, precision="fp32")

    assert not find_faults(*models.layer_pair(0), some_pixels(2)).faults


def test_a_person_may_say_what_a_graph_does_not_show(tmp_path: Path, stack: ExitStack) -> None:
    file = written(behind("Softmax", "Clip"), tmp_path / "model.onnx")

    assert not opened(stack, file, said=Said(endings=("logits",))).as_probabilities
    assert opened(stack, file, said=Said(endings=("sigmoid",))).output_kind == "multi-label"
    shown = Foreign(end=("Softmax",)).saved(tmp_path / "shown.onnx")
    with pytest.raises(UsageError, match="ends in a softmax, as its graph shows: leave --ending"):
        opened(stack, shown, said=Said(endings=("logits",)))
    with pytest.raises(UsageError, match="--ending tanh: choose logits or softmax"):
        opened(stack, file, said=Said(endings=("tanh",)))


def test_what_answers_show_of_the_ending() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 10)) * 3
    of_labels = sigmoid(logits)

    assert ending_of(logits, "single-label") is None
    assert ending_of(np.maximum(logits, 0), "single-label") is None
    assert ending_of(softmax(logits), "single-label") == "softmax"
    assert ending_of(100 * softmax(logits), "single-label") == "softmax"
    assert ending_of(log_softmax(logits), "single-label") == "log-softmax"
    assert ending_of(of_labels, "single-label") == "sigmoid"
    assert ending_of(of_labels, "multi-label") == "sigmoid"
    assert ending_of(of_labels[:, :1], "multi-label") == "sigmoid"
    assert ending_of(np.zeros((4, 10)), "single-label") is None
    assert ending_of(np.full((4, 10), np.nan), "single-label") is None
    assert ending_of(np.concatenate([of_labels, [[np.nan] * 10]]), "multi-label") == "sigmoid"


def test_an_answer_that_a_seen_ending_cannot_give_is_refused() -> None:
    way_out = WayOut("last", None, "last").ending_in("sigmoid")

    way_out.rows(np.array([[0.0, 1.0], [np.nan, 7.0]], np.float32), "model")
    with pytest.raises(BackendError, match="taken for what a sigmoid gives.*from 0.5 to 1.5"):
        way_out.rows(np.array([[0.5, 1.5]], np.float32), "model")
    with pytest.raises(BackendError, match="with a sum of 1.5, which none gives: say.*--ending"):
        WayOut("last", None, "last").ending_in("softmax").rows(
            np.array([[0.5, 0.5], [0.5, 1.0]], np.float32), "model"
        )


@pytest.mark.parametrize("kind", ["regression", "features"])
def test_values_and_features_within_one_are_no_probabilities(
    kind: str, tmp_path: Path, stack: ExitStack
) -> None:
    file = written(behind("Softmax", "Clip"), tmp_path / "model.onnx")

    assert not opened(stack, file, output_kind=kind).as_probabilities
