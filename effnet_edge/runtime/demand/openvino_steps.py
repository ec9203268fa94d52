"""The steps of a model that OpenVINO has read, and not compiled yet: it tells every shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from effnet_edge.runtime.demand.steps import Step, foreign, refuse_greedy, size_in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONSTANT, _RESHAPE, _RESULT = "Constant", "Reshape", "Result"
_ITEM_BYTES_AT_MOST = 8


def refuse_greedy_openvino(model: Any, weights: int, batch: int, file: object) -> None:
    """Refuse an `openvino.Model` that takes too much.

    Args:
        weights: bytes of the file of constants, which those in memory may have without counting.
        batch: the least number of images that it runs.

    Raises:
        BundleError: naming the file, and what is wrong.
    """
    refuse_greedy(_steps(model, weights, batch, file), file)


def _steps(model: Any, weights: int, batch: int, file: object) -> Iterator[Step]:
    constants = 0
    sizes: dict[tuple[int, int], int] = {}
    for node in model.get_ordered_ops():
        name, kind = node.get_friendly_name(), node.get_type_name()
        if kind == _RESULT:
            continue
        number, sources = node.get_instance_id(), _sources(node)
        made = {}
        for place, port in enumerate(node.outputs()):
            if kind == _RESHAPE and _is_open(port):
                made[number, place] = sizes[sources[0]]
                continue
            shape = _shape(port, batch, name, file)
            made[number, place] = size_in_memory(shape, _item_bytes(port))
        sizes |= made
        if kind == _CONSTANT:
            port = node.output(0)
            own = math.prod(port.get_shape()) * _item_bytes(port)
            before, constants = constants, constants + own
            yield Step(name, (), {}, kept=max(constants - max(weights, before), 0))
            continue
        yield Step(name, sources, made, *_work(node, kind, batch, name, file))


def _sources(node: Any) -> list[tuple[int, int]]:
    outputs = [port.get_source_output() for port in node.inputs()]
    return [(output.get_node().get_instance_id(), output.get_index()) for output in outputs]


def _shape(port: Any, batch: int, name: str, file: object) -> tuple[int, ...]:
    """With an open batch filled in; nothing else may be open."""
    shape = port.get_partial_shape()
    if shape.is_static:
        return tuple(shape.to_shape())
    if not shape.rank.is_static:
        raise foreign(file, f"the shape of its layer {name!r} is unknown")
    sides = []
    for axis, side in enumerate(shape):
        if not side.is_static and axis:
            raise foreign(file, f"the shape of its layer {name!r} is unknown")
        sides.append(
            int(side.get_length()) if side.is_static else max(int(side.get_min_length()), batch)
        )
    return tuple(sides)


def _is_open(port: Any) -> bool:
    """Whether more than the batch is unknown: a reshape has as many numbers as it is made from."""
    shape = port.get_partial_shape()
    return not shape.rank.is_static or any(not side.is_static for side in list(shape)[1:])


def _item_bytes(port: Any) -> int:
    return min(int(port.get_element_type().size), _ITEM_BYTES_AT_MOST)


def _work(node: Any, kind: str, batch: int, name: str, file: object) -> tuple[int, int]:
    """Bytes that are unfolded at once, and multiplications."""
    if kind in ("Convolution", "GroupConvolution"):
        kernel = _shape(node.input(1).get_source_output(), batch, name, file)
        output = _shape(node.output(0), batch, name, file)
        per_output = math.prod(kernel[1 if kind == "Convolution" else 2 :])
        taps = math.prod(kernel[2 - len(output) :])
        unfolded = 0 if taps == 1 else math.prod(output[2:]) * per_output
        return unfolded * 4, math.prod(output) * per_output
    if kind == "MatMul":
        left = _shape(node.input(0).get_source_output(), batch, name, file)
        return 0, math.prod(_shape(node.output(0), batch, name, file)) * max(left, default=1)
    return 0, 0
