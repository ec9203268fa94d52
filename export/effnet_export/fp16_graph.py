"""An ONNX graph rewritten in FP16: weights and activations, with Cast nodes at the borders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from effnet_edge.graphs.editing import replace_nodes, without_initializers
from effnet_edge.graphs.types import element_types, without_weights

if TYPE_CHECKING:
    from collections.abc import Collection

QUANTIZATION_OPERATIONS = frozenset({"QuantizeLinear", "DequantizeLinear"})

# Inputs by operation that are no tensors of the network's arithmetic: integers, axes, shapes.
_UNTYPED_INPUTS = {
    "QuantizeLinear": {2},
    "DequantizeLinear": {0, 2},
    "ReduceMean": {1},
    "ReduceMax": {1},
    "Reshape": {1},
    "Pad": {1, 3},
}


def write_types(model: onnx.ModelProto, kept: Collection[str]) -> onnx.ModelProto:
    """The graph in FP16, but for the nodes called `kept`; inputs and outputs keep their types."""
    typed = without_initializers(model)
    _TypeWriter(model, typed.graph, kept).write()
    inferred = onnx.shape_inference.infer_shapes(
        without_weights(typed), check_type=True, strict_mode=True
    )
    typed.graph.value_info.extend(inferred.graph.value_info)
    onnx.checker.check_model(typed)
    return typed


def scales(graph: onnx.GraphProto) -> set[str]:
    """Names of the scales of QuantizeLinear and DequantizeLinear nodes."""
    return {node.input[1] for node in graph.node if node.op_type in QUANTIZATION_OPERATIONS}


class _TypeWriter:
    """A float32 graph being typed: `graph` is that of `model`, without its initializers."""

    def __init__(
        self, model: onnx.ModelProto, graph: onnx.GraphProto, kept: Collection[str]
    ) -> None:
        self._graph = graph
        self._kept = set(kept)
        self._types = element_types(model)
        self._initializers = {each.name: each for each in model.graph.initializer}
        self._scales = scales(model.graph)
        self._converted: list[onnx.TensorProto] = []
        self._made: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._output_casts: list[onnx.NodeProto] = []

    def write(self) -> None:
        graph = self._graph
        outputs = {value.name: value.type.tensor_type.elem_type for value in graph.output}
        now = dict(self._types)
        for node in graph.node:
            wanted = TensorProto.FLOAT if node.name in self._kept else TensorProto.FLOAT16
            skipped = _UNTYPED_INPUTS.get(node.op_type, ())
            for index, name in enumerate(node.input):
                if index not in skipped and self._types.get(name) == TensorProto.FLOAT:
                    node.input[index] = self._as(name, wanted, now)
            if node.op_type == "Cast" and self._types[node.output[0]] == TensorProto.FLOAT:
                _set_cast(node, wanted)
            for position, name in enumerate(node.output):
                if self._types.get(name) != TensorProto.FLOAT:
                    continue
                now[name] = wanted
                if name in outputs and wanted != outputs[name]:
                    self._restore_output(node, position, outputs[name], now)
            self._nodes.append(node)
            self._nodes.extend(self._output_casts)
            self._output_casts.clear()
        replace_nodes(graph, self._nodes)
        self._add_initializers()

    def _as(self, name: str, wanted: int, now: dict[str, int]) -> str:
        """The tensor in the wanted type: itself, a converted initializer, or behind a Cast."""
        if now.get(name) == wanted:
            return name
        if (name, wanted) not in self._made:
            self._made[name, wanted] = self._convert(name, wanted)
        return self._made[name, wanted]

    def _convert(self, name: str, wanted: int) -> str:
        suffix = "fp16" if wanted == TensorProto.FLOAT16 else "fp32"
        new = f"{name}/{suffix}"
        if name in self._initializers:
            dtype = helper.tensor_dtype_to_np_dtype(wanted)
            value = numpy_helper.to_array(self._initializers[name]).astype(dtype)
            if name in self._scales:  # the scale of a nearly dead channel must not become 0
                value = np.maximum(value, np.finfo(dtype).smallest_subnormal)
            self._converted.append(numpy_helper.from_array(value, new))
        else:
            self._nodes.append(helper.make_node("Cast", [name], [new], name=new, to=wanted))
        return new

    def _restore_output(
        self, node: onnx.NodeProto, position: int, outside: int, now: dict[str, int]
    ) -> None:
        """Give an output of the graph its own type back."""
        name = node.output[position]
        inner = f"{name}/fp16"
        node.output[position] = inner
        now[inner], now[name] = TensorProto.FLOAT16, outside
        self._made[name, TensorProto.FLOAT16] = inner
        self._output_casts.append(
            helper.make_node("Cast", [inner], [name], name=f"{name}/Cast", to=outside)
        )

    def _add_initializers(self) -> None:
        """Those that are read, the original ones first."""
        read = {name for node in self._graph.node for name in node.input}
        for each in (*self._initializers.values(), *self._converted):
            if each.name in read:
                self._graph.initializer.append(each)


def _set_cast(node: onnx.NodeProto, wanted: int) -> None:
    for attribute in node.attribute:
        if attribute.name == "to":
            attribute.i = wanted
