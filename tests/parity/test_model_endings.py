"""A softmax or a sigmoid at the end of a model file is seen, told, and taken for what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from foreign_models import FORMATS, Foreign, opened, some_pixels, true_logits

from effnet_edge.parity.batch_sizes import BatchSizeCheck
from effnet_edge.parity.comparison import Comparison
from effnet_edge.parity.inside.bisection import find_faults
from effnet_edge.parity.measures.metrics import log_softmax, sigmoid, softmax

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
