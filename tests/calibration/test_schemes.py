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
    ASYMMETRIC_UINT8,
    SCHEMES,
    SYMMETRIC_INT8,
    QuantizationScheme,
    get_scheme,
)

schemes = st.sampled_from(list(SCHEMES.values()))
reaches = st.floats(1e-6, 1e6)


@given(schemes, reaches, reaches, st.floats(0, 1))
def test_every_value_of_the_range_is_kept_to_within_half_a_step(
    scheme: QuantizationScheme, low: float, high: float, position: float
) -> None:
    grid = scheme.for_range(-low, high)
    value = torch.tensor([-low + position * (low + high)], dtype=torch.float32)
    error = float((grid.fake_quantize(value) - value).abs())
    # The zero point is rounded too, which may cost another half step at the ends.
    assert error <= grid.scale * 1.001 + 1e-5 * abs(float(value))


@given(schemes, st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_zero_is_always_on_the_grid(scheme: QuantizationScheme, a: float, b: float) -> None:
    grid = scheme.for_range(min(a, b), max(a, b))
    assert grid.minimum <= grid.zero_point <= grid.maximum
    assert grid.scale > 0
    assert float(grid.fake_quantize(torch.zeros(1))) == 0


@given(reaches, reaches)
def test_a_symmetric_grid_has_zero_point_0(low: float, high: float) -> None:
    assert SYMMETRIC_INT8.for_range(-low, high).zero_point == 0


def test_an_empty_range_gives_a_usable_grid() -> None:
    for scheme in SCHEMES.values():
        assert scheme.for_range(0, 0).scale == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_range_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        ASYMMETRIC_UINT8.for_range(0, bad)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=str)
def test_integers_are_those_of_onnx_quantize_linear(scheme: QuantizationScheme) -> None:
    grid = scheme.for_range(-0.3, 5.0)
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
