"""FP16 typing: what overflows or loses too much stays in FP32, found by measuring."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, version_converter

from effnet_edge.bundle import BatchRange
from effnet_edge.graphs.rounding import with_rounding
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import Source, load_source
from effnet_edge.parity import compare
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.pictures.image import Preprocessing
from effnet_export.fp16 import type_fp16
from effnet_export.fp16_graph import write_types
from effnet_export.onnx_graph import export_onnx
from effnet_export.simplify import simplify
from effnet_export.tensorrt_graph import cast_pixels_first

SIDE = 8
PREPROCESSING = Preprocessing(SIDE, 1.0, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def chain(*factors: float, side: int = SIDE) -> onnx.ModelProto:
    """Convolutions of one weight each, a to b to c, and the mean of what comes out."""
    nodes, initializers, last = [], [], "image"
    for index, factor in enumerate(factors):
        name = f"part{index}"
        weight = np.zeros((3, 3, 1, 1), np.float32)
        weight[range(3), range(3)] = factor
        initializers.append(numpy_helper.from_array(weight, f"{name}.weight"))
        nodes.append(helper.make_node("Conv", [last, f"{name}.weight"], [name], name=name))
        last = name
    initializers.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    nodes.append(
        helper.make_node("ReduceMean", [last, "axes"], ["logits"], name="mean", keepdims=0)
    )
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_what_overflows_stays_in_fp32_and_right() -> None:
    model = chain(1.0, 3e5, 1e-5, 1.0)
    pictures = EmbeddedPhotos(4)

    naive = OnnxClassifier(with_rounding(write_types(model, ())), PREPROCESSING, "naive")
    typed = type_fp16(model, pictures, PREPROCESSING)

    exact = OnnxClassifier(model, PREPROCESSING, "exact")
    assert {"part1", "part2"} <= set(typed.overflowing)
    assert "part0" not in typed.overflowing
    assert typed.largest < 65504
    pixels, _ = next(iter(pictures.batches(PREPROCESSING, 4)))
    assert not np.isfinite(naive.infer(pixels)).all()
    candidate = OnnxClassifier(with_rounding(typed.model), PREPROCESSING, "typed")
    assert compare(exact, candidate, pictures, PREPROCESSING).sqnr_db > 50


def test_the_pictures_are_never_all_in_memory() -> None:
    side, count = 256, 100
    large = replace(PREPROCESSING, resolution=side)
    one = 3 * side * side * np.dtype(np.float32).itemsize
    tracemalloc.start()
    try:
        type_fp16(chain(1.0, 1.0, side=side), EmbeddedPhotos(count), large)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < count / 2 * one


def with_pair(model: onnx.ModelProto, scale: float) -> onnx.ModelProto:
    """The chain with a rounding to INT8 between part1 and part2."""
    node = next(each for each in model.graph.node if each.name == "part2")
    grid = ((np.float32(scale), "scale"), (np.int8(0), "zero"))
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), n) for v, n in grid)
    pair = (
        helper.make_node("QuantizeLinear", ["part1", "scale", "zero"], ["q"], name="part1/q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"], name="part1/dq"),
    )
    node.input[0] = "dq"
    for each in reversed(pair):
        model.graph.node.insert(2, each)
    return model


def test_a_weight_that_overflows_is_told_as_such_whatever_it_multiplies() -> None:
    typed = type_fp16(chain(1e-6, 3e5, 1.0), EmbeddedPhotos(4), PREPROCESSING)
    assert typed.overflowing == ("part1",)


def test_the_scale_of_a_nearly_dead_tensor_does_not_become_zero() -> None:
    model = version_converter.convert_version(with_pair(chain(1.0, 1.0, 1.0), 1e-9), 19)
    typed = write_types(model, ())
    (scale,) = (each for each in typed.graph.initializer if each.name == "scale/fp16")
    assert numpy_helper.to_array(scale) > 0


def test_a_rounding_to_int8_does_not_keep_a_part_in_fp32() -> None:
    """A step of INT8 that FP16 flips is no error of the part before it."""
    model = with_pair(chain(1.1, 1.3, 0.7, 1.0), 0.5)

    typed = type_fp16(model, EmbeddedPhotos(8), PREPROCESSING)

    assert typed.lossy == ()


def test_the_worst_of_negligible_errors_stays_in_fp16() -> None:
    """Rounded, 1.1 is the only weight with an error; it is 68 dB below the logits."""
    typed = type_fp16(chain(1.1, 1.0, 1.0, 1.0), EmbeddedPhotos(8), PREPROCESSING)
    assert typed.lossy == ()


def test_what_is_too_small_for_fp16_stays_in_fp32() -> None:
    """A weight and activations of few steps of 2^−24: both who makes and who reads them."""
    model = chain(1.0, 1.1 * 2**-20, 2.0**15, 1.0)
    pictures = EmbeddedPhotos(8)

    typed = type_fp16(model, pictures, PREPROCESSING)

    exact = OnnxClassifier(model, PREPROCESSING, "exact")
    candidate = OnnxClassifier(typed.model, PREPROCESSING, "typed", rounding=True)
    assert typed.overflowing == ()
    assert typed.lossy == ("part1", "part2")
    assert compare(exact, candidate, pictures, PREPROCESSING).sqnr_db > 50


def test_the_emulation_rounds_as_numpy_does() -> None:
    typed = write_types(chain(1.1), ())
    image = np.random.default_rng(0).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)

    import onnxruntime

    model = with_rounding(typed)
    model.graph.output.append(helper.make_tensor_value_info("part0", TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    convolved = session.run(["part0"], {"image": image})[0]

    halves = image.astype(np.float16).astype(np.float32)
    expected = (halves * np.float32(np.float16(1.1))).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(convolved, expected)


@pytest.fixture(scope="module")
def source() -> Source:
    return load_source(NetworkRequest("b0", resolution=96))


@pytest.mark.parametrize(
    "input_kind",
    [
        pytest.param("uint8-nhwc", marks=pytest.mark.sample),
        pytest.param("float32-nchw", marks=pytest.mark.slow),
    ],
)
def test_b0_keeps_its_answers_inputs_and_outputs(source: Source, input_kind: str) -> None:
    batch = BatchRange(1, 2, 4)
    preprocessing = source.preprocessing
    exported = simplify(
        export_onnx(
            fold_batch_norm(source.network), preprocessing, input_kind=input_kind, batch=batch
        )
    )
    pictures = EmbeddedPhotos(8)

    typed = type_fp16(cast_pixels_first(exported), pictures, preprocessing)

    exact = OnnxClassifier(exported, preprocessing, "FP32")
    candidate = OnnxClassifier(with_rounding(typed.model), preprocessing, "FP16")
    result = compare(exact, candidate, pictures, preprocessing)
    assert result.sqnr_db > 45
    assert result.top1_agreement == 1
    assert typed.overflowing == ()
    for before, after in (
        (exported.graph.input[0], typed.model.graph.input[0]),
        (exported.graph.output[0], typed.model.graph.output[0]),
    ):
        assert before.type == after.type
    weights = [each for each in typed.model.graph.initializer if each.name.endswith("fp16")]
    assert len(weights) > 100
    assert {each.data_type for each in weights} == {TensorProto.FLOAT16}
