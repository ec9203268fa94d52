"""Graphs in FP16 are simulated with every tensor rounded, which onnxruntime alone does not do."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from effnet_edge.graphs.rounding import with_rounding

CHANNELS = 4


def chain(first: float, second: float) -> onnx.ModelProto:
    """x → Cast to FP16 → times `first` → times `second` → Cast to FP32."""
    factors = [np.asarray([each] * CHANNELS, np.float16) for each in (first, second)]
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["half", "first"], ["between"]),
        helper.make_node("Mul", ["between", "second"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", CHANNELS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CHANNELS])],
        [
            numpy_helper.from_array(value, name)
            for value, name in zip(factors, ("first", "second"), strict=True)
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (y,) = session.run(None, {"x": x})
    return y


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(np.float32, (2, CHANNELS), elements=st.floats(-100, 100, width=32)),
    st.floats(0.01, 100),
    st.floats(0.01, 100),
)
def test_every_step_is_that_of_numpy_in_fp16(x: np.ndarray, first: float, second: float) -> None:
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16) * np.float16(first) * np.float16(second)

    found = run(with_rounding(chain(first, second)), x)

    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_an_overflow_that_a_plain_run_hides_is_seen() -> None:
    model = chain(100.0, 0.01)
    x = np.full((1, CHANNELS), 1000, np.float32)

    assert np.isinf(run(with_rounding(model), x)).all()
    assert run(model, x) == pytest.approx(1000, rel=1e-2)
