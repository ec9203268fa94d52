"""What a graph in FP16 computes, on a machine that has no arithmetic in FP16.

onnxruntime's CPU provider runs an FP16 node in FP32 between two casts, and takes out the casts of
neighbours: nothing between them is rounded, and such a run hides what FP16 costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.graphs.editing import copied, replace_nodes
from effnet_edge.graphs.types import element_types

if TYPE_CHECKING:
    import onnx

_EXACT = "/exact"
_ROUNDED = "/rounded"
_STEP = "/rounding"


def with_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in FP32, each tensor that was FP16 rounded to it where it is made.

    Sums within a node are in FP32, as TensorRT's tensor cores accumulate. A value beyond 65504
    becomes infinite, as it does in FP16.
    """
    from onnx import TensorProto, helper, numpy_helper

    rounded = copied(model)
    graph = rounded.graph
    types = element_types(model)
    for constant in graph.initializer:
        if constant.data_type == TensorProto.FLOAT16:
            value = numpy_helper.to_array(constant).astype(np.float32)
            constant.CopyFrom(numpy_helper.from_array(value, constant.name))
    nodes = []
    for node in graph.node:
        made = next((name for name in node.output if types.get(name) == TensorProto.FLOAT16), None)
        nodes.append(node)
        if made is None:
            continue
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to":
                attribute.i = TensorProto.FLOAT
        node.output[list(node.output).index(made)] = made + _EXACT
        for source, target, kind in (
            (made + _EXACT, made + _ROUNDED, TensorProto.FLOAT16),
            (made + _ROUNDED, made, TensorProto.FLOAT),
        ):
            name = f"{target}{_STEP}"
            nodes.append(helper.make_node("Cast", [source], [target], name=name, to=kind))
    replace_nodes(graph, nodes)
    return rounded
