"""A LiteRT model opened at its tensors: others come out of it, and some are given to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effnet_edge.graphs.litert_file import import_schema, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_GIVEN = "/given"


def opened(content: bytes, outputs: Sequence[int], given: Sequence[int]) -> bytes:
    """The file with these tensors as its outputs, and what does not lead to them left out.

    Args:
        content: of a model that has been checked.
        given: tensors that whoever reads them gets from new inputs, behind the model's own.
    """
    model = unpack(content)
    graph = model.subgraphs[0]
    stand_ins = {number: _stand_in(graph, number) for number in given}
    for operator in graph.operators:
        operator.inputs = [stand_ins.get(each, each) for each in _numbers(operator.inputs)]
    graph.inputs = [*_numbers(graph.inputs), *stand_ins.values()]
    graph.outputs = list(outputs)
    graph.operators = _needed(graph.operators, outputs)
    model.signatureDefs = None  # they name the outputs that it had
    return pack(model)


def _stand_in(graph: Any, number: int) -> int:
    """The number of a new tensor like that one, which nothing computes."""
    original, tensor = graph.tensors[number], import_schema().TensorT()
    tensor.name = f"{_text(original.name)}{_GIVEN}"
    tensor.shape = original.shape
    # The model's own shape may be what is wrong with it.
    tensor.shapeSignature = [-1] * len(original.shape)
    tensor.type, tensor.quantization = original.type, original.quantization
    tensor.hasRank = True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _needed(operators: Sequence[Any], outputs: Collection[int]) -> list[Any]:
    wanted, kept = set(outputs), []
    for operator in reversed(operators):
        if wanted.intersection(_numbers(operator.outputs)):
            wanted.update(operator.inputs)
            kept.append(operator)
    return kept[::-1]


def _numbers(told: Any) -> list[int]:
    return [] if told is None else [int(each) for each in told]


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name or "")
