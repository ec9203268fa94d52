"""The portable ONNX graph of a TensorRT bundle: strongly typed, one for TensorRT 10.0 to 11."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

from effnet_edge.graphs.editing import copied, replace_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator


def cast_pixels_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with uint8 pixels cast before they are transposed: the same numbers.

    TensorRT takes uint8 as the input of a network, but no layer but a Cast reads it (NVIDIA
    TensorRT API, `DataType.UINT8`).
    """
    result = copied(model)
    image = result.graph.input[0]
    if image.type.tensor_type.elem_type != TensorProto.UINT8:
        return result
    replace_nodes(result.graph, _pixels_first(result.graph, image.name))
    onnx.checker.check_model(result)
    return result


def _pixels_first(graph: onnx.GraphProto, image: str) -> Iterator[onnx.NodeProto]:
    moved = {
        node.output[0]
        for node in graph.node
        if node.op_type == "Transpose" and node.input[0] == image
    }
    casts = {
        node.input[0]: node.output[0]
        for node in graph.node
        if node.op_type == "Cast" and node.input[0] in moved
    }
    floats = f"{image}/Cast"
    if casts:
        yield helper.make_node("Cast", [image], [floats], name=floats, to=TensorProto.FLOAT)
    for node in graph.node:
        if node.output[0] in casts:
            node.input[0], node.output[0] = floats, casts[node.output[0]]
        elif node.output[0] in casts.values():
            continue
        yield node
