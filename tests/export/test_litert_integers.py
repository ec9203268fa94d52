"""Graphs with Q/DQ pairs as LiteRT's integer operators, against the ONNX standard's reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from effnet_edge.errors import BackendError
from effnet_edge.parity.models.litert_interface import Structure
from effnet_edge.runtime.demand.litert_steps import COMPUTE, checked_litert
from effnet_edge.runtime.litert_interpreter import LiteRtInterpreter
from effnet_export.litert.writing import litert_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from effnet_edge.runtime.demand.litert_model import LiteRtModel

IN, OUT = (0.05, 3), (0.08, -20)


class Graph:
    """Of `x`, float32, every value of it on a grid."""

    def __init__(self, shape: tuple[int, ...] = (2, 4, 6, 5)) -> None:
        self.shape = shape
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def const(self, name: str, values: Any) -> str:
        self.constants[name] = np.asarray(values)
        return name

    def rounded(self, name: str, scale: float, zero: int) -> str:
        grid = [
            self.const(f"{name}/scale", np.float32(scale)),
            self.const(f"{name}/zero", np.int8(zero)),
        ]
        integers = self.add("QuantizeLinear", [name, *grid], f"{name}/Q")
        return self.add("DequantizeLinear", [integers, *grid], f"{name}/DQ")

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        integers = self.random.integers(-127, 128, shape).astype(np.int8)
        scales = self.random.uniform(0.001, 0.01, shape[0]).astype(np.float32)
        inputs = [
            self.const(name, integers),
            self.const(f"{name}/scale", scales),
            self.const(f"{name}/zero", np.zeros(shape[0], np.int8)),
        ]
        return self.add("DequantizeLinear", inputs, f"{name}/DQ", axis=0)

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(self.nodes[-1].output[0], TensorProto.FLOAT, None)],
            [numpy_helper.from_array(each, name) for name, each in self.constants.items()],
        )
        opset = [helper.make_opsetid("", 21)]
        return helper.make_model(graph, opset_imports=opset, ir_version=10)


def assert_within_a_step(graph: Graph, scale: float, kinds: list[str]) -> LiteRtModel:
    """Run by LiteRT, which rounds halves its own way; these operators, and all in integers."""
    model = graph.model()
    x = graph.random.normal(0, 2, graph.shape).astype(np.float32)
    content = litert_file(model)
    checked = checked_litert(content, "model.tflite")
    expected = ReferenceEvaluator(model).run(None, {"x": x})[0]
    (found,) = LiteRtInterpreter(content, 1).run([x])
    steps = np.abs(found - expected) / scale
    assert steps.max() < 1.01
    assert steps.mean() < 0.3
    inner = [each for each in checked.operators if each.kind in kinds]
    assert [each.kind for each in inner] == kinds
    for each in inner:
        assert checked.tensors[each.output].dtype == "int8"
    return checked


@settings(deadline=None, max_examples=25)
@given(
    taps=st.tuples(st.sampled_from([1, 3]), st.sampled_from([1, 3])),
    stride=st.integers(1, 2),
    pads=st.tuples(*[st.integers(0, 1)] * 4),
    depthwise=st.booleans(),
)
def test_convolutions(
    taps: tuple[int, int], stride: int, pads: tuple[int, ...], depthwise: bool
) -> None:
    graph = Graph()
    shape = (4, 1, *taps) if depthwise else (6, 4, *taps)
    bias = graph.const("b", graph.random.normal(size=shape[0]).astype(np.float32))
    inputs = [graph.rounded("x", *IN), graph.weight("w", shape), bias]
    attributes = {"strides": [stride] * 2, "pads": pads, "group": 4 if depthwise else 1}
    graph.rounded(graph.add("Conv", inputs, "y", kernel_shape=taps, **attributes), *OUT)
    assert_within_a_step(graph, OUT[0], ["DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"])


@settings(deadline=None, max_examples=25)
@given(
    sides=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    channels=st.integers(1, 5),
    rows=st.integers(1, 2),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
)
def test_few_channels_in_pairs_of_columns(
    sides: tuple[int, int], channels: int, rows: int, pads: tuple[int, ...]
) -> None:
    graph = Graph((2, channels, *sides))
    weight = graph.weight("w", (6, channels, 3, 3))
    inputs = [graph.rounded("x", *IN), weight]
    attributes = {"strides": [rows, 2], "pads": pads, "kernel_shape": (3, 3)}
    graph.rounded(graph.add("Conv", inputs, "y", **attributes), *OUT)
    model = assert_within_a_step(graph, OUT[0], ["CONV_2D"])
    padded = sides[1] + pads[1] + pads[3] if any(_not_same(sides, rows, pads)) else sides[1]
    paired = channels <= 4 and padded % 2 == 0
    kinds = [each.kind for each in model.operators]
    assert ("RESHAPE" in kinds) == paired
    (convolution,) = [each for each in model.operators if each.kind == "CONV_2D"]
    told = Structure(model).parameters(convolution.output)
    assert told is not None
    integers, scales = graph.constants["w"], graph.constants["w/scale"]
    np.testing.assert_allclose(told.weight, integers * scales.reshape(-1, 1, 1, 1), rtol=1e-6)
    assert told.strides == (rows, 2)
    assert told.pads == (None if "PAD" in kinds else pads)


def _not_same(sides: tuple[int, int], rows: int, pads: tuple[int, ...]) -> Iterator[bool]:
    """Of both axes, whether it is padded and otherwise than LiteRT's SAME."""
    if not any(pads):
        return
    for side, stride, before, after in zip(sides, (rows, 2), pads[:2], pads[2:], strict=True):
        missing = max((-(-side // stride) - 1) * stride + 3 - side, 0)
        yield (before, after) != (missing // 2, missing - missing // 2)


def test_an_equalized_silu() -> None:
    graph = Graph()
    x = graph.rounded("x", *IN)
    weighted = graph.add("Conv", [x, graph.weight("w", (4, 4, 1, 1))], "c", kernel_shape=(1, 1))
    y = graph.rounded(weighted, 0.03, -40)
    factors = np.float32([127, 5, 64, 30]).reshape(1, 4, 1, 1) * np.float32(0.02)
    real = graph.rounded(graph.add("Mul", [y, graph.const("s", factors)], "real"), 1 / 16, 0)
    gate = graph.rounded(graph.add("Sigmoid", [real], "gate"), 1 / 256, -128)
    graph.rounded(graph.add("Mul", [y, gate], "z"), 0.03, -100)
    # One step of the sigmoid's input is up to four of the result.
    model = graph.model()
    content = litert_file(model)
    x_values = graph.random.normal(0, 2, (2, 4, 6, 5)).astype(np.float32)
    expected = ReferenceEvaluator(model).run(None, {"x": x_values})[0]
    (found,) = LiteRtInterpreter(content, 1).run([x_values])
    assert np.abs(found - expected).max() < 4.01 * 0.03
    inner = [each.kind for each in checked_litert(content, "m").operators][2:-2]
    assert inner == ["CONV_2D", "MUL", "LOGISTIC", "MUL"]


def test_a_hard_swish_is_a_sum_and_a_product() -> None:
    graph = Graph()
    x = graph.rounded("x", *IN)
    weighted = graph.add("Conv", [x, graph.weight("w", (4, 4, 1, 1))], "c", kernel_shape=(1, 1))
    y = graph.rounded(weighted, 11 / 255, -58)
    shifted = graph.add("Add", [y, graph.const("three", np.float32(3))], "shifted")
    ends = [graph.const("zero", np.float32(0)), graph.const("six", np.float32(6))]
    gate = graph.rounded(graph.add("Clip", [shifted, *ends], "gate"), 6 / 255, -128)
    graph.rounded(graph.add("Mul", [y, gate], "z"), 0.2, -115)
    checked = assert_within_a_step(graph, 0.2, ["CONV_2D", "ADD"])
    assert [each.kind for each in checked.operators][2:-2] == ["CONV_2D", "ADD", "MUL"]


def hybrid(graph: Graph, kind: str) -> onnx.ModelProto:
    """A layer whose weights are integers, and whose values are not."""
    if kind == "dense":
        mean = graph.add(
            "ReduceMean", ["x", graph.const("axes", np.int64([2, 3]))], "m", keepdims=0
        )
        bias = graph.const("b", graph.random.normal(size=7).astype(np.float32))
        graph.add("Gemm", [mean, graph.weight("w", (7, 4)), bias], "y", transB=1)
    else:
        groups = 4 if kind == "depthwise" else 1
        weight = graph.weight("w", (4, 4 // groups, 3, 3))
        graph.add("Conv", ["x", weight], "y", kernel_shape=(3, 3), pads=[1] * 4, group=groups)
    return graph.model()


@pytest.mark.parametrize("kind", ["dense", "convolution", "depthwise"])
def test_weights_of_integers_between_floats(kind: str) -> None:
    graph = Graph()
    model = hybrid(graph, kind)
    x = graph.random.normal(0, 2, (2, 4, 6, 5)).astype(np.float32)
    expected = ReferenceEvaluator(model).run(None, {"x": x})[0]
    content = litert_file(model)
    checked = checked_litert(content, "model.tflite")
    (weighted,) = (each for each in checked.operators if each.kind in COMPUTE)
    found = LiteRtInterpreter(content, 1).run([x])[0]
    if kind == "depthwise":  # There is no kernel for it.
        assert checked.tensors[weighted.inputs[1]].dtype == "float32"
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    else:
        assert checked.tensors[weighted.inputs[1]].dtype == "int8"
        assert checked.tensors[weighted.output].dtype == "float32"
        # What it reads is rounded to 256 steps.
        assert np.abs(found - expected).max() < 0.02 * np.ptp(expected)
        assert np.abs(found - expected).max() > 0
        alone = LiteRtInterpreter(content, 1).run([np.stack([x[0] * 50, x[1]])])[0]
        np.testing.assert_array_equal(alone[1], found[1])


@pytest.mark.parametrize("kind", ["Relu", "Clip", "Min"])
def test_what_cuts_off_at_the_ends_of_its_grid_is_no_operator(kind: str) -> None:
    graph = Graph()
    x = graph.rounded("x", *IN)
    y = graph.add("Conv", [x, graph.weight("w", (4, 4, 1, 1))], "c", kernel_shape=(1, 1))
    if kind == "Clip":
        ends = [graph.const("zero", np.float32(0)), graph.const("six", np.float32(6))]
        y = graph.add("Clip", [y, *ends], "a")
    else:
        y = graph.add("Relu", [y], "r")
    if kind == "Min":
        limits = graph.const("limits", np.float32([6, 7, 8, 6]).reshape(1, 4, 1, 1))
        y = graph.add("Min", [y, limits], "a")
    graph.rounded(y, 6 / 255, -128)
    checked = assert_within_a_step(graph, 6 / 255, ["CONV_2D"])
    assert not {"RELU", "RELU6"} & {each.kind for each in checked.operators}
    assert y in {each.name for each in checked.tensors}


def test_a_limit_inside_of_the_grid_is_refused() -> None:
    graph = Graph()
    x = graph.rounded("x", *IN)
    y = graph.add("Conv", [x, graph.weight("w", (4, 4, 1, 1))], "c", kernel_shape=(1, 1))
    limits = graph.const("limits", np.float32([5, 7, 8, 6]).reshape(1, 4, 1, 1))
    graph.rounded(graph.add("Min", [y, limits], "a"), 6 / 255, -128)
    with pytest.raises(BackendError, match=r"the node 'a' \(Min\) cannot be converted"):
        litert_file(graph.model())


def test_sums_and_means() -> None:
    graph = Graph()
    x = graph.rounded("x", *IN)
    y = graph.add("Conv", [x, graph.weight("w", (4, 4, 1, 1))], "c", kernel_shape=(1, 1))
    total = graph.rounded(graph.add("Add", [graph.rounded(y, *OUT), x], "sum"), 0.1, 5)
    axes = graph.const("axes", np.int64([2, 3]))
    graph.rounded(graph.add("ReduceMean", [total, axes], "mean", keepdims=1), 0.03, 10)
    assert_within_a_step(graph, 0.03, [])
    kinds = [each.kind for each in checked_litert(litert_file(graph.model()), "m").operators]
    assert kinds.count("DEQUANTIZE") == 1


def test_floating_point_between_integers() -> None:
    graph = Graph()
    inputs = [graph.rounded("x", *IN), graph.weight("v", (4, 4, 1, 1))]
    x = graph.rounded(graph.add("Conv", inputs, "first", kernel_shape=(1, 1)), *OUT)
    weight = graph.const("w", graph.random.normal(size=(4, 4, 1, 1)).astype(np.float32))
    kept = graph.add("Conv", [x, weight], "kept", kernel_shape=(1, 1))
    graph.rounded(graph.add("Mul", [graph.rounded(kept, *OUT), x], "z"), 0.9, 0)
    checked = assert_within_a_step(graph, 0.9, ["MUL"])
    convolutions = [each for each in checked.operators if each.kind == "CONV_2D"]
    made = [checked.tensors[each.output].dtype for each in convolutions]
    assert made == ["int8", "float32"]
