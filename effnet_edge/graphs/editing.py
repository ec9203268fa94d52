"""Copies of ONNX graphs, and the edits that more than one step makes to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from effnet_edge.graphs.types import element_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx
    from google.protobuf.message import Message as AnyMessage

    Message = TypeVar("Message", bound=AnyMessage)


def copied(message: Message) -> Message:
    """A deep copy of a protobuf message, which a list that is cleared cannot take away."""
    duplicate: Message = type(message)()
    duplicate.CopyFrom(message)
    return duplicate


def without_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that lacks the initializers, and never held them: weights take gigabytes."""
    import onnx

    bare = onnx.ModelProto()
    _copy_fields(model, bare, "graph")
    _copy_fields(model.graph, bare.graph, "initializer")
    return bare


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Give the graph these nodes, its own ones among them or not, and forget inferred types."""
    kept = [copied(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.value_info[:]


def rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors new names wherever nodes read or make them and constants hold them.

    Inputs and outputs of the graph keep theirs. Inferred types are forgotten.
    """
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for initializer in graph.initializer:
        initializer.name = names.get(initializer.name, initializer.name)
    del graph.value_info[:]


def opened(
    model: onnx.ModelProto, outputs: Sequence[str], inputs: Mapping[str, str]
) -> onnx.ModelProto:
    """A copy with inner tensors as its outputs, and new inputs in the place of others.

    Args:
        outputs: the tensors that it gives, in this order, instead of its own outputs.
        inputs: the new input's name by the tensor that it stands for to whoever reads that.
    """
    import onnx

    copy = copied(model)
    graph = copy.graph
    for node in graph.node:
        node.input[:] = [inputs.get(name, name) for name in node.input]
    types = element_types(model) if inputs else {}
    graph.input.extend(
        onnx.helper.make_tensor_value_info(new, types.get(old, onnx.TensorProto.FLOAT), None)
        for old, new in inputs.items()
    )
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return copy


def _copy_fields(source: AnyMessage, target: AnyMessage, without: str) -> None:
    for field, value in source.ListFields():
        if field.name == without:
            continue
        if hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)
