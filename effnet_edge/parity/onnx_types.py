"""The element type of every tensor of an ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """`onnx.TensorProto` types of inputs, constants and what nodes make, by tensor name.

    A tensor whose type onnx cannot infer is left out.
    """
    from onnx import TensorProto, shape_inference

    graph = shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {constant.name: constant.data_type for constant in graph.initializer}
    return {name: kind for name, kind in types.items() if kind != TensorProto.UNDEFINED}
