from __future__ import annotations

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from effnet_edge.runtime.openvino_constants import constant_of

VALUES = [1.0, 2.0, -3.0]


@pytest.mark.parametrize("kind", ["f64", "f32", "f16", "bf16", "f8e4m3", "i64", "i8", "i4"])
def test_the_numbers_are_those_of_any_type(kind: str) -> None:
    """Also of those that numpy lacks, whose bits OpenVINO gives as numbers of another type."""
    constant = ops.constant(np.asarray(VALUES, np.float32), getattr(openvino.Type, kind))
    for node in (constant, ops.convert(constant, "f32")):
        found = constant_of(node.output(0))
        assert found is not None
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, VALUES)


def test_what_is_computed_is_no_constant() -> None:
    parameter = ops.parameter([3], np.float32)
    assert constant_of(ops.add(parameter, ops.constant(np.float32(1))).output(0)) is None
