"""The steps of an ONNX graph: which operators it may have, and the shapes that they make.

Shapes are upper bounds of what a library that follows the standard makes of valid inputs:
https://onnx.ai/onnx/operators/. ONNX Runtime does not tell them, and computes what is constant
while it loads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from effnet_edge.runtime.demand.onnx_model import (
    STRING,
    WIDE,
    Node,
    OnnxModel,
    Tensor,
    read_onnx,
)
from effnet_edge.runtime.demand.steps import (
    MOST_DIMENSIONS,
    ForeignError,
    Step,
    foreign,
    refuse_greedy,
    size_in_memory,
)
from effnet_edge.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from effnet_edge.runtime.interface import Interface

    Shape = tuple[int, ...]
    Rule = Callable[["_Graph", Node], tuple[Shape, int, int]]

_LARGE = 64  # of 64-bit constants: others are shapes and axes


def refuse_greedy_onnx(model: bytes, told: Interface, file: object) -> None:
    """Refuse a model that is not as exports are, or takes too much; `told` is the manifest's.

    Raises:
        BundleError: naming the file, and what is wrong.
    """
    try:
        graph = _Graph(read_onnx(model), told)
        refuse_greedy(graph.steps(), file)
    except (ForeignError, WireError) as error:
        raise foreign(file, str(error)) from error


class _Graph:
    """Shapes by the names of the values, filled in the order of the nodes."""

    def __init__(self, model: OnnxModel, told: Interface) -> None:
        self._model = model
        self._constants = dict(model.constants)
        self._shapes: dict[str, Shape] = {n: each.shape for n, each in self._constants.items()}
        spans = told.inputs[0].shape
        for name, given in model.inputs.items():
            least = [span.least for span in spans] if len(spans) == len(given.shape) else []
            open_sides = least or [1] * len(given.shape)
            self._shapes[name] = tuple(
                max(side or 1, open_side) if side is None or place == 0 else side
                for place, (side, open_side) in enumerate(zip(given.shape, open_sides, strict=True))
            )
        wide = any(each.type in WIDE for each in model.inputs.values()) or any(
            each.type in WIDE and math.prod(each.shape) > _LARGE
            for each in model.constants.values()
        )
        self._item_bytes = 8 if wide else 4

    def steps(self) -> Iterator[Step]:
        """Each node's; a constant takes nothing but the file."""
        given = {name: self._bytes(self._shapes[name]) for name in self._model.inputs}
        yield Step("its input", (), given)
        for node in self._model.nodes:
            yield self._step(node)

    def _step(self, node: Node) -> Step:
        rule = _RULES.get(node.operator)
        if rule is None:
            raise ForeignError(f"its node {_name(node)!r} is a {node.operator}")
        if len(node.outputs) != 1 and node.operator != "BatchNormalization":
            raise ForeignError(f"its node {_name(node)!r} has {len(node.outputs)} outputs")
        try:
            shape, scratch, multiplications = rule(self, node)
        except (ValueError, IndexError, KeyError, ArithmeticError) as error:
            raise ForeignError(f"the shape of its node {_name(node)!r} is unknown") from error
        if len(shape) > MOST_DIMENSIONS or any(side < 0 for side in shape):
            raise ForeignError(f"its node {_name(node)!r} has an impossible shape")
        output = node.outputs[0]
        if output in self._shapes:
            raise ForeignError(f"the value {output!r} is made twice")
        self._shapes[output] = shape
        return Step(
            _name(node),
            tuple(each for each in node.inputs if each not in self._constants),
            {output: self._bytes(shape)},
            scratch * self._item_bytes,
            multiplications,
        )

    def _bytes(self, shape: Shape) -> int:
        return size_in_memory(shape, self._item_bytes)

    def shape(self, node: Node, place: int = 0) -> Shape:
        return self._shapes[node.inputs[place]]

    def numbers(self, node: Node, place: int, attribute: str) -> tuple[int, ...] | None:
        """What an attribute or, in later versions of ONNX, a constant says; None if nothing."""
        if attribute in node.attributes:
            return node.attributes[attribute].numbers
        if len(node.inputs) <= place or not node.inputs[place]:
            return None
        constant = self._constants.get(node.inputs[place])
        if constant is None or constant.numbers is None:
            raise ForeignError(f"its node {_name(node)!r} computes a shape")
        return constant.numbers

    def add_constant(self, name: str, tensor: Tensor) -> None:
        self._constants[name] = tensor

    def widen(self) -> None:
        self._item_bytes = 8


def _name(node: Node) -> str:
    return node.name or (node.outputs[0] if node.outputs else node.operator)


def _like_input(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    return graph.shape(node), 0, 0


def _cast(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    to = node.attributes["to"].number
    if to == STRING:
        raise ForeignError(f"its node {_name(node)!r} makes text")
    if to in WIDE:
        graph.widen()
    return graph.shape(node), 0, 0


def _broadcast(*shapes: Shape) -> Shape:
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(sides) if min(sides) else 0 for sides in zip(*padded, strict=True))


def _elementwise(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    shapes = [graph.shape(node, place) for place in range(len(node.inputs))]
    return _broadcast(*shapes), 0, 0


def _transpose(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    shape = graph.shape(node)
    order = node.attributes["perm"].numbers if "perm" in node.attributes else None
    axes = order or tuple(reversed(range(len(shape))))
    if sorted(axes) != list(range(len(shape))):
        raise ValueError(axes)
    return tuple(shape[axis] for axis in axes), 0, 0


def _convolution(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    (images, _, *sides), (outputs, *kernel) = graph.shape(node), graph.shape(node, 1)
    taps = kernel[1:]
    rank = len(sides)
    if len(taps) != rank or not rank:
        raise ValueError(taps)

    def listed(name: str, length: int, default: int) -> tuple[int, ...]:
        found = node.attributes[name].numbers if name in node.attributes else ()
        if found and len(found) != length:
            raise ValueError(found)
        return found or (default,) * length

    strides, dilations = listed("strides", rank, 1), listed("dilations", rank, 1)
    pads = listed("pads", 2 * rank, 0)
    if min(strides) < 1 or min(dilations) < 1 or min(pads) < 0:
        raise ValueError(strides)
    automatic = node.attributes["auto_pad"].text if "auto_pad" in node.attributes else b""
    made = []
    for axis, side in enumerate(sides):
        if automatic.startswith(b"SAME"):
            made.append(-(-side // strides[axis]))
            continue
        reach = dilations[axis] * (taps[axis] - 1) + 1
        padded = side + pads[axis] + pads[axis + rank]
        made.append(max(padded - reach, 0) // strides[axis] + 1)
    shape = (images, outputs, *made)
    per_output = math.prod(kernel)
    unfolded = 0 if math.prod(taps) == 1 else math.prod(made) * per_output
    return shape, unfolded, math.prod(shape) * per_output


def _gemm(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    left, right = graph.shape(node), graph.shape(node, 1)
    for name in ("transA", "transB"):
        if name in node.attributes and node.attributes[name].number:
            if name == "transA":
                left = left[::-1]
            else:
                right = right[::-1]
    (rows, inner), (_, columns) = left, right
    return (rows, columns), 0, rows * inner * columns


def _matrix_product(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    left, right = graph.shape(node), graph.shape(node, 1)
    if len(left) < 2 or len(right) < 2:
        raise ValueError(left)
    shape = (*_broadcast(left[:-2], right[:-2]), left[-2], right[-1])
    return shape, 0, math.prod(shape) * left[-1]


def _mean(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    shape = graph.shape(node)
    axes = graph.numbers(node, 1, "axes")
    given = axes or range(len(shape))
    gone = {axis % len(shape) for axis in given}
    kept = node.attributes["keepdims"].number if "keepdims" in node.attributes else 1
    if kept:
        return tuple(1 if axis in gone else side for axis, side in enumerate(shape)), 0, 0
    return tuple(side for axis, side in enumerate(shape) if axis not in gone), 0, 0


def _global_pool(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    images, channels, *sides = graph.shape(node)
    return (images, channels, *(1 for _ in sides)), 0, 0


def _flatten(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    shape = graph.shape(node)
    axis = node.attributes["axis"].number if "axis" in node.attributes else 1
    return (math.prod(shape[:axis]), math.prod(shape[axis:])), 0, 0


def _reshape(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    shape = graph.shape(node)
    wanted = graph.numbers(node, 1, "shape") or ()
    zeros_stay = "allowzero" in node.attributes and node.attributes["allowzero"].number
    sides = [
        shape[place] if not each and not zeros_stay else each for place, each in enumerate(wanted)
    ]
    known = math.prod(side for side in sides if side != -1)
    rest = -(-math.prod(shape) // known) if known else 0
    made = tuple(rest if side == -1 else side for side in sides)
    if math.prod(made) > math.prod(shape) + known:
        raise ValueError(made)
    return made, 0, 0


def _squeeze(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    shape = graph.shape(node)
    axes = graph.numbers(node, 1, "axes")
    gone = {axis % len(shape) for axis in axes} if axes else None
    return (
        tuple(
            side
            for axis, side in enumerate(shape)
            if (side != 1 if gone is None else axis not in gone)
        ),
        0,
        0,
    )


def _unsqueeze(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    shape = list(graph.shape(node))
    axes = graph.numbers(node, 1, "axes") or ()
    rank = len(shape) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        shape.insert(axis, 1)
    return tuple(shape), 0, 0


def _pad(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    shape = graph.shape(node)
    pads = graph.numbers(node, 1, "pads") or ()
    if len(pads) != 2 * len(shape) or len(node.inputs) > 3:
        raise ValueError(pads)
    half = len(shape)
    return (
        tuple(max(side + pads[axis] + pads[axis + half], 0) for axis, side in enumerate(shape)),
        0,
        0,
    )


def _concatenation(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    shapes = [graph.shape(node, place) for place in range(len(node.inputs))]
    axis = node.attributes["axis"].number % len(shapes[0])
    made = list(shapes[0])
    made[axis] = sum(shape[axis] for shape in shapes)
    return tuple(made), 0, 0


def _constant(graph: _Graph, node: Node) -> tuple[Shape, int, int]:
    for name, attribute in node.attributes.items():
        if name == "value" and attribute.tensor is not None:
            graph.add_constant(node.outputs[0], attribute.tensor)
            return attribute.tensor.shape, 0, 0
        if name in ("value_float", "value_int"):
            return (), 0, 0
        if name == "value_ints":
            shape = (len(attribute.numbers),)
            graph.add_constant(node.outputs[0], Tensor(shape, 7, attribute.numbers))
            return shape, 0, 0
    raise ForeignError(f"its node {_name(node)!r} is a constant of an unknown kind")


_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            *("BatchNormalization", "Clip", "DequantizeLinear", "Identity", "QuantizeLinear"),
            *("HardSigmoid", "HardSwish", "Relu", "Sigmoid", "Softmax", "Swish"),
        ),
        _like_input,
    ),
    **dict.fromkeys(("Add", "Div", "Max", "Min", "Mul", "PRelu", "Sub"), _elementwise),
    **dict.fromkeys(("ReduceMax", "ReduceMean"), _mean),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    "Cast": _cast,
    "Concat": _concatenation,
    "Constant": _constant,
    "Conv": _convolution,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "MatMul": _matrix_product,
    "Pad": _pad,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
