"""LiteRT files against the ONNX standard's reference implementation, run by LiteRT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from effnet_edge.errors import BackendError, GateError
from effnet_edge.model.request import NetworkRequest
from effnet_edge.runtime.demand.litert_steps import checked_litert
from effnet_edge.runtime.litert_interpreter import LiteRtInterpreter
from effnet_export.litert import operators
from effnet_export.litert.writing import litert_file
from effnet_export.pipeline import export_bundle
from effnet_export.request import ExportRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from effnet_export.litert.conversion import Conversion

RANDOM = np.random.default_rng(0)


def graph(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    constants: dict[str, npt.NDArray[Any]] | None = None,
) -> onnx.ModelProto:
    """Of `x`, which is float32 of that shape, and gives what the last node gives."""
    last = nodes[-1].output[0]
    inner = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(each, name) for name, each in (constants or {}).items()],
    )
    return helper.make_model(inner, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def assert_same(
    model: onnx.ModelProto, x: npt.NDArray[np.float32], *, exact: float = 1e-5, **options: Any
) -> None:
    content = litert_file(model, **options)
    checked_litert(content, "model.tflite")
    expected = ReferenceEvaluator(model).run(None, {"x": x})[0]
    (found,) = LiteRtInterpreter(content, 1).run([x])
    np.testing.assert_allclose(found, expected, rtol=exact, atol=exact)


def values(*shape: int) -> npt.NDArray[np.float32]:
    return RANDOM.normal(size=shape).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    sides=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    taps=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3])),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    kind=st.sampled_from(["dense", "depthwise", "multiplied"]),
    has_bias=st.booleans(),
)
def test_every_convolution(
    sides: tuple[int, int],
    taps: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    kind: str,
    has_bias: bool,
) -> None:
    outputs, per_group = {"dense": (6, 4), "depthwise": (4, 1), "multiplied": (8, 1)}[kind]
    constants = {"w": values(outputs, per_group, *taps), "b": values(outputs)}
    inputs = ["x", "w", "b"] if has_bias else ["x", "w"]
    groups = 1 if kind == "dense" else 4
    attributes = {"strides": strides, "pads": pads, "group": groups, "kernel_shape": taps}
    node = helper.make_node("Conv", inputs, ["y"], "y", **attributes)
    assert_same(graph([node], [2, 4, *sides], constants), values(2, 4, *sides))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("ReduceMean", ["y", "axes"], ["z"], keepdims=0)],
        [helper.make_node("ReduceMean", ["y", "axes"], ["z"], keepdims=1)],
        [helper.make_node("ReduceMax", ["y", "axes"], ["z"], keepdims=0)],
        [
            helper.make_node("GlobalAveragePool", ["y"], ["p"]),
            helper.make_node("Flatten", ["p"], ["z"]),
        ],
        [
            helper.make_node("GlobalMaxPool", ["y"], ["p"]),
            helper.make_node("Squeeze", ["p", "axes"], ["z"]),
        ],
        [helper.make_node("Sigmoid", ["y"], ["s"]), helper.make_node("Mul", ["y", "s"], ["z"])],
        [helper.make_node("Clip", ["y", "zero", "six"], ["z"])],
        [helper.make_node("Relu", ["y"], ["r"]), helper.make_node("Add", ["y", "r"], ["z"])],
        [helper.make_node("Mul", ["y", "per_channel"], ["z"])],
        [helper.make_node("Add", ["per_channel", "y"], ["z"])],
        [
            helper.make_node("ReduceMean", ["y", "axes"], ["m"], keepdims=0),
            helper.make_node("Gemm", ["m", "rows", "bias"], ["z"], transB=1),
        ],
        [
            helper.make_node("ReduceMean", ["y", "axes"], ["m"], keepdims=0),
            helper.make_node("MatMul", ["m", "columns"], ["z"]),
        ],
    ],
    ids=lambda nodes: "-".join(node.op_type for node in nodes),
)
def test_every_operator_behind_a_convolution(nodes: list[onnx.NodeProto], batch: int) -> None:
    constants = {
        "w": values(6, 3, 3, 3) * 3,
        "axes": np.array([2, 3]),
        "zero": np.float32(0),
        "six": np.float32(6),
        "per_channel": values(6, 1, 1),
        "rows": values(5, 6),
        "bias": values(5),
        "columns": values(6, 5),
    }
    first = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    model = graph([first, *nodes], ["N", 3, 6, 7], constants)
    assert_same(model, values(batch, 3, 6, 7))


def test_weights_in_fp16_are_those_numbers() -> None:
    weight = values(6, 3, 3, 3)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    x = values(1, 3, 6, 6)
    content = litert_file(graph([node], [1, 3, 6, 6], {"w": weight}), fp16_weights=True)
    checked_litert(content, "model.tflite")
    rounded = graph([node], [1, 3, 6, 6], {"w": weight.astype(np.float16).astype(np.float32)})
    expected = ReferenceEvaluator(rounded).run(None, {"x": x})[0]
    (found,) = LiteRtInterpreter(content, 1).run([x])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert len(content) < len(litert_file(rounded))


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Erf", ["x"], ["y"], "odd"),
        helper.make_node("Clip", ["x", "zero", "zero"], ["y"], "odd"),
        helper.make_node("Conv", ["x", "w"], ["y"], "odd", dilations=[2, 2]),
        helper.make_node("Conv", ["x", "w"], ["y"], "odd", auto_pad="SAME_LOWER"),
        helper.make_node("Transpose", ["x"], ["y"], "odd", perm=[1, 0, 2, 3]),
        helper.make_node("Flatten", ["x"], ["y"], "odd"),
        helper.make_node("Cast", ["x"], ["y"], "odd", to=TensorProto.INT64),
    ],
    ids=lambda node: node.op_type,
)
def test_what_cannot_be_said_is_one_line_that_names_the_node(node: onnx.NodeProto) -> None:
    model = graph([node], [1, 3, 6, 6], {"zero": np.float32(0), "w": values(2, 3, 3, 3)})
    with pytest.raises(BackendError, match=rf"the node 'odd' \({node.op_type}\)") as caught:
        litert_file(model)
    assert "\n" not in str(caught.value)


def test_the_same_graph_gives_the_same_bytes() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    model = graph([node], ["N", 3, 6, 6], {"w": values(6, 3, 3, 3)})
    assert litert_file(model) == litert_file(model)


@pytest.mark.slow
@pytest.mark.sample
def test_the_gate_names_the_operator_that_was_written_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = operators.convert_node

    def wrong(conversion: Conversion, node: onnx.NodeProto) -> None:
        if node.name == "stages.3.1.depthwise.conv":
            name = node.input[1]
            turned = conversion.constant(node, 1)
            assert turned is not None
            conversion._constants[name] = turned.transpose(0, 1, 3, 2).copy()
        right(conversion, node)

    monkeypatch.setattr("effnet_export.litert.writing.convert_node", wrong)
    network = NetworkRequest("b0", "random", 3, resolution=64)
    request = ExportRequest(network, "litert", "fp32", output=tmp_path / "b")
    told = r"litert changed the model: .*first wrong node: stages\.3\.1\.depthwise\.conv "
    with pytest.raises(GateError, match=told):
        export_bundle(request)
    assert not (tmp_path / "b").exists()
