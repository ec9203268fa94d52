"""LiteRT files as models to compare: their answers, their tensors and what is given to these."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from integer_models import model_of_integers
from onnx import helper
from tiny_bundles import CLASSES, PREPROCESSING, SIDE, tiny_model

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.parity.inside.bisection import find_faults
from effnet_edge.parity.inside.tracing import shared_tensors
from effnet_edge.parity.models.litert import LiteRtClassifier, litert_entrance
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_export.litert.writing import litert_file

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

TENSORS = ("scaled", "conv", "relu", "mean", "logits")


def written(folder: Path, model: onnx.ModelProto, *, fp16: bool = False) -> Path:
    path = folder / "tiny.tflite"
    path.write_bytes(litert_file(model, fp16_weights=fp16))
    return path


def pixels(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(params=[1, 4, "N"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[OnnxClassifier, LiteRtClassifier]:
    model = tiny_model(batch=request.param)
    path = written(tmp_path, model)
    return OnnxClassifier(model, PREPROCESSING), LiteRtClassifier(path, PREPROCESSING)


def test_it_answers_as_the_graph(pair: tuple[OnnxClassifier, LiteRtClassifier]) -> None:
    reference, candidate = pair
    for count in (1, 3, 9):
        expected, found = (each.infer(pixels(count)) for each in pair)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert candidate.batch == reference.batch
    assert (candidate.execution_precision, candidate.stored_precision) == ("FP32", "FP32")
    assert str(candidate.entrance) == "uint8 NHWC (N, 8, 8, 3), pixels of 0..255"


def test_it_shows_its_tensors_as_pytorch_lays_them_out(
    pair: tuple[OnnxClassifier, LiteRtClassifier],
) -> None:
    expected, found = (each.activations(pixels(5), TENSORS) for each in pair)
    assert list(found) == list(TENSORS)
    for name in ("conv", "relu", "mean", "logits"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)
    assert found["conv"].shape == (5, 8, SIDE - 2, SIDE - 2)


def test_what_is_given_is_read_instead(pair: tuple[OnnxClassifier, LiteRtClassifier]) -> None:
    given = {"conv": np.random.default_rng(2).normal(size=(3, 8, 6, 6)).astype(np.float32)}
    expected, found = (each.activations(pixels(3), ["relu", "logits"], given) for each in pair)
    np.testing.assert_array_equal(found["relu"], np.maximum(given["conv"], 0))
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-5, atol=1e-5)


def test_it_tells_weights_and_kernels(pair: tuple[OnnxClassifier, LiteRtClassifier]) -> None:
    expected, found = (each.parameters("conv") for each in pair)
    assert expected is not None
    assert found is not None
    np.testing.assert_array_equal(found.weight, expected.weight)
    assert (found.pads, found.strides) == ((0, 0, 0, 0), (1, 1))
    kernels = [(kernel.tensors[-1], kernel.operation) for kernel in pair[1].kernels()]
    assert ("conv", "CONV_2D, pads [0, 0, 0, 0]") in kernels
    assert kernels[-1] == ("logits", "FULLY_CONNECTED")
    assert pair[1].parameters("relu") is None


def test_a_fault_is_found_at_its_operator(tmp_path: Path) -> None:
    wrong = tiny_model("float32", "N")
    kernel = next(each for each in wrong.graph.initializer if each.name == "kernel")
    turned = onnx.numpy_helper.to_array(kernel).transpose(0, 1, 3, 2).copy()
    kernel.CopyFrom(onnx.numpy_helper.from_array(turned, "kernel"))
    candidate = LiteRtClassifier(written(tmp_path, wrong), PREPROCESSING)
    reference = OnnxClassifier(tiny_model("float32", "N"), PREPROCESSING)
    assert not find_faults(reference, reference, pixels(2)).faults
    (fault,) = find_faults(reference, candidate, pixels(2)).faults
    assert str(fault).startswith("conv (CONV_2D, pads [0, 0, 0, 0]): its kernels are transposed")


@pytest.mark.parametrize("equalized", [False, True])
def test_a_silu_in_integers_is_judged_by_what_it_gives(tmp_path: Path, equalized: bool) -> None:
    path = written(tmp_path, model_of_integers("N", equalized=equalized))
    candidate = LiteRtClassifier(path, PREPROCESSING)
    assert candidate.execution_precision == "INT8"
    (silu,) = [each for each in candidate.kernels() if "SiLU" in each.operation]
    inner = ("conv", "real", "gate", "silu") if equalized else ("conv", "gate", "silu")
    assert (silu.tensors, silu.precision) == (inner, "INT8")
    assert silu.operation == "CONV_2D, pads [0, 0, 0, 0], SiLU"
    # Its grid cuts off what is so negative that SiLU has nothing left of it.
    plain = model_of_integers("N", equalized=equalized, rounds=False)
    reference = OnnxClassifier(plain, PREPROCESSING)
    negative = reference.activations(pixels(8), ["conv"])["conv"].min()
    (grid,) = [each for each in candidate.grids() if each.tensor == "conv"]
    assert negative < 2 * grid.low
    assert not find_faults(reference, candidate, pixels(8)).faults
    shared = shared_tensors(reference, candidate)
    assert "silu" in shared
    assert not shared.keys() & {"conv", "real", "gate"}


def test_a_hard_swish_in_integers_is_judged_by_what_it_gives(tmp_path: Path) -> None:
    path = written(tmp_path, model_of_integers("N", hard=True))
    candidate = LiteRtClassifier(path, PREPROCESSING)
    told = {kernel.tensors: (kernel.operation, kernel.precision) for kernel in candidate.kernels()}
    assert told["conv", "gate", "silu"] == ("CONV_2D, pads [0, 0, 0, 0], HardSwish", "INT8")
    # Its weights are integers, and what it reads is rounded by itself.
    assert told["logits",] == ("FULLY_CONNECTED", "INT8")
    plain = OnnxClassifier(model_of_integers("N", hard=True, rounds=False), PREPROCESSING)
    assert not find_faults(plain, candidate, pixels(8)).faults
    weight = candidate.parameters("logits")
    expected = plain.parameters("logits")
    assert weight is not None
    assert expected is not None
    np.testing.assert_allclose(weight.weight, expected.weight, rtol=1e-6)
    expected_logits = plain.infer(pixels(8))
    off = np.abs(candidate.infer(pixels(8)) - expected_logits).max()
    assert 0 < off < 0.06 * np.ptp(expected_logits)


def test_a_fault_before_a_silu_in_integers_is_found(tmp_path: Path) -> None:
    wrong = model_of_integers("N", equalized=True)
    kernel = next(each for each in wrong.graph.initializer if each.name == "kernel")
    negated = onnx.numpy_helper.to_array(kernel) * np.int8([[[[-1]]], [[[1]]]] * 4)
    kernel.CopyFrom(onnx.numpy_helper.from_array(negated, "kernel"))
    candidate = LiteRtClassifier(written(tmp_path, wrong), PREPROCESSING)
    plain = model_of_integers("N", equalized=True, rounds=False)
    (fault,) = find_faults(OnnxClassifier(plain, PREPROCESSING), candidate, pixels(2)).faults
    assert (fault.node, fault.operation) == ("silu", "CONV_2D, pads [0, 0, 0, 0], SiLU")


def test_fp16_weights_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, tiny_model(batch="N"), fp16=True)
    candidate = LiteRtClassifier(path, PREPROCESSING)
    assert (candidate.execution_precision, candidate.stored_precision) == ("FP32", "FP16")
    expected = OnnxClassifier(tiny_model(batch="N"), PREPROCESSING).infer(pixels(3))
    np.testing.assert_allclose(candidate.infer(pixels(3)), expected, rtol=1e-2, atol=1e-2)
    weight = candidate.parameters("conv")
    assert weight is not None
    assert weight.weight.dtype == np.float32


def test_a_sigmoid_at_the_end_is_undone(tmp_path: Path) -> None:
    model = tiny_model(batch="N")
    model.graph.node.append(helper.make_node("Sigmoid", ["logits"], ["chances"]))
    model.graph.output[0].name = "chances"
    candidate = LiteRtClassifier(written(tmp_path, model), PREPROCESSING)
    assert candidate.way_out.ending == "sigmoid"
    expected = OnnxClassifier(tiny_model(batch="N"), PREPROCESSING).infer(pixels(3))
    np.testing.assert_allclose(candidate.infer(pixels(3)), expected, rtol=1e-3, atol=1e-3)


def test_a_model_of_channels_first_is_read_so(tmp_path: Path) -> None:
    path = written(tmp_path, tiny_model("float32", "N"))
    assert litert_entrance(path).layout == "nchw"
    assert LiteRtClassifier(path, PREPROCESSING).infer(pixels(2)).shape == (2, CLASSES)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\0" * 4 + b"TFL3"])
def test_what_is_no_model_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.tflite"
    path.write_bytes(content)
    with pytest.raises(BackendError, match=r"bad\.tflite") as caught:
        LiteRtClassifier(path, PREPROCESSING)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="no such LiteRT model"):
        LiteRtClassifier(tmp_path / "none.tflite", PREPROCESSING)
