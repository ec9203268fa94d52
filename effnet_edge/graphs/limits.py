"""What a foreign ONNX graph may ask for: no loops, and no tensor that fills the machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from effnet_edge.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx

MOST_TENSOR_BYTES = 2 << 30
_LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})
_SMALL = 1024


def refuse_greedy(model: onnx.ModelProto, name: object) -> None:
    """Refuse a graph before anything runs or folds it.

    Tensors are measured for one image, as far as ONNX's shape inference tells their shapes: a size
    that the graph computes from its pixels stays unknown.

    Raises:
        BackendError: it has a loop, or a tensor larger than `MOST_TENSOR_BYTES`.
    """
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    for node in (node for body in bodies for node in _all_nodes(body)):
        if node.op_type in _LOOPS:
            raise BackendError(
                f"{name}: the node {node.name or node.output[0]!r} is a loop ({node.op_type}), "
                "which may have no end: an EfficientNet has none"
            )
    for value in _shapes(model):
        size = _bytes(value.type.tensor_type)
        if size > MOST_TENSOR_BYTES:
            raise BackendError(
                f"{name}: the tensor {value.name!r} has {size / 2**30:.1f} GiB, more than the "
                f"{MOST_TENSOR_BYTES >> 30} GiB that one may have"
            )


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _all_nodes(graph.node)


def _shapes(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Every tensor whose shape is known; none where the graph is too wrong to tell."""
    from onnx import shape_inference

    try:
        graph = shape_inference.infer_shapes(_without_weights(model), data_prop=True).graph
    except Exception:  # its exceptions share no public base class; ONNX Runtime will tell
        return []
    return [*graph.value_info, *graph.output]


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its weights as inputs; constants that may be shapes stay."""
    from onnx import ModelProto, helper

    light = ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = "light"
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    given = {each.name for each in model.graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            light.graph.initializer.append(tensor)
        elif tensor.name not in given:
            shape = list(tensor.dims)
            light.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, shape)
            )
    return light


def _bytes(tensor: onnx.TypeProto.Tensor) -> int:
    from onnx import helper

    size = math.prod(max(int(each.dim_value), 1) for each in tensor.shape.dim)
    try:
        return size * int(helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)
    except (KeyError, ValueError):  # a type that NumPy has not
        return size
