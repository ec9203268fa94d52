"""Weights in FP16 beside INT8 ones: OpenVINO stores all others of a quantized model in FP32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.runtime.openvino_core import import_openvino

if TYPE_CHECKING:
    import openvino
    from numpy.typing import NDArray

_READERS = frozenset({"Convolution", "GroupConvolution", "MatMul"})
# FP16 has 11 significant bits, but for numbers beyond its largest or smallest normal one.
_ROUNDING = 2.0**-10


def halve_float_weights(model: openvino.Model) -> None:
    """Store in FP16, in place, the FP32 weights that convolutions and matrix products read.

    OpenVINO gives them FP32 back when it compiles the model, once. Weights that FP16 cannot hold to
    its own precision, measured by the largest of each output channel, stay as they are.
    """
    openvino = import_openvino()
    operations = openvino.opset13
    for reader in model.get_ordered_ops():
        if reader.get_type_name() not in _READERS:
            continue
        constant = reader.input_value(1).get_node()
        if constant.get_type_name() != "Constant":
            continue
        weights = constant.get_data() if constant.get_element_type() == openvino.Type.f32 else None
        if weights is None or not _fit(weights):
            continue
        name = constant.get_friendly_name()
        half = operations.constant(weights.astype(np.float16), name=f"{name}_compressed")
        restored = operations.convert(half, "f32", name=name)
        reader.input(1).replace_source_output(restored.output(0))


def _fit(weights: NDArray[np.float32]) -> bool:
    """Whether FP16 holds them; the first axis is that of the output channels."""
    with np.errstate(over="ignore"):
        errors = np.abs(weights.astype(np.float16).astype(np.float32) - weights)
    inner = tuple(range(1, weights.ndim))
    largest = np.abs(weights).max(axis=inner, keepdims=True)
    return bool(np.all(errors <= _ROUNDING * largest))
