from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effnet_calibration.errors import CalibrationError
from effnet_calibration.schemes import (
    SCHEMES,
    QuantizationScheme,
    TensorQuantization,
    get_scheme,
)

schemes = st.sampled_from(list(SCHEMES.values()))
scales = st.floats(1e-6, 1e6)
positions = st.floats(0, 1)


def grid_of(scheme: QuantizationScheme, scale: float, zero_position: float) -> TensorQuantization:
    zero_point = 0 if scheme.symmetric else scheme.minimum + round(zero_position * scheme.levels)
    return scheme.on_grid(scale, zero_point)


@given(schemes, scales, positions, positions)
def test_every_value_that_the_grid_spans_is_kept_to_within_half_a_step(
    scheme: QuantizationScheme, scale: float, zero_position: float, position: float
) -> None:
    grid = grid_of(scheme, scale, zero_position)
    integer = grid.minimum + position * scheme.levels - grid.zero_point
    value = torch.tensor([integer * scale], dtype=torch.float32)
    error = float((grid.fake_quantize(value) - value).abs())
    assert error <= 0.5 * scale * 1.001


@given(schemes, scales, positions)
def test_zero_is_always_on_the_grid(
    scheme: QuantizationScheme, scale: float, zero_position: float
) -> None:
    grid = grid_of(scheme, scale, zero_position)
    assert float(grid.fake_quantize(torch.zeros(1))) == 0


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=str)
def test_integers_are_those_of_onnx_quantize_linear(scheme: QuantizationScheme) -> None:
    grid = grid_of(scheme, 5.3 / 255, 0.3 / 5.3)
    values = torch.randn(1000) * 3
    session = onnxruntime.InferenceSession(
        _quantize_linear(scheme.dtype, grid.scale, grid.zero_point).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    (theirs,) = session.run(None, {"x": values.numpy()})
    np.testing.assert_array_equal(grid.quantize(values).numpy(), theirs.astype(np.float32))


def test_an_unknown_scheme_is_named_with_the_known_ones() -> None:
    with pytest.raises(CalibrationError, match=r"int4.*asymmetric-uint8"):
        get_scheme("int4")


def _quantize_linear(dtype: str, scale: float, zero_point: int) -> onnx.ModelProto:
    helper, kind = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])],
        "q",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("y", kind, [None])],
        [
            onnx.numpy_helper.from_array(np.float32(scale), "scale"),
            onnx.numpy_helper.from_array(np.array(zero_point, dtype), "zero"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
