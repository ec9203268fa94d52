"""The element type of every tensor of an ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx

# Shapes, axes and amounts of padding are read by shape inference; weights are not.
_LARGEST_READ = 1024


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """`onnx.TensorProto` types of inputs, constants and what nodes make, by tensor name.

    A tensor whose type onnx cannot infer is left out.
    """
    from onnx import TensorProto, shape_inference

    graph = shape_inference.infer_shapes(without_weights(model)).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {constant.name: constant.data_type for constant in graph.initializer}
    return {name: kind for name, kind in types.items() if kind != TensorProto.UNDEFINED}


def without_weights(model: onnx.ModelProto, kept: Collection[str] = ()) -> onnx.ModelProto:
    """The graph with inputs of the same type and shape instead of its large constants.

    onnx infers types in a copy of a copy of what it is given, which of weights takes gigabytes.

    Args:
        kept: names of constants that stay, however large they are.
    """
    import onnx

    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph, whole = bare.graph, model.graph
    bare.functions.extend(model.functions)
    graph.name = whole.name
    graph.node.extend(whole.node)
    graph.input.extend(whole.input)
    graph.output.extend(whole.output)
    graph.value_info.extend(whole.value_info)
    graph.sparse_initializer.extend(whole.sparse_initializer)
    named = {value.name for value in whole.input}
    for constant in whole.initializer:
        if constant.ByteSize() <= _LARGEST_READ or constant.name in kept:
            graph.initializer.append(constant)
        elif constant.name not in named:
            graph.input.append(
                onnx.helper.make_tensor_value_info(constant.name, constant.data_type, constant.dims)
            )
    return bare
