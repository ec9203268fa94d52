"""The steps of a LiteRT model: which operators it may have, and the shapes that they make.

Images are (N, H, W, C). LiteRT finds the shapes itself when it makes room for them; what it would
find is held to what the file tells, and types and grids to what its kernels take.
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from effnet_edge.runtime.demand.litert_model import LiteRtModel, Operator, Tensor, read_litert
from effnet_edge.runtime.demand.steps import ForeignError, Step, foreign, refuse_greedy
from effnet_edge.runtime.interface import Interface, Span
from effnet_edge.runtime.interface import Tensor as Port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Shape = tuple[int, ...]
    # The shape, bytes that are unfolded at once for an image, and multiplications.
    Rule = Callable[["_Graph", Operator], tuple[Shape, int, int]]

COMPUTE = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
"""The operators that have weights."""

_PARAMETERS = {
    "float32": (["float32", "float32"], ["int8", "float32"]),
    "int8": (["int8", "int32"],),
}
"""Types of weights and bias by that of the values: floats are rounded by an operator itself."""
_AXIS_OF_OUTPUTS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
_MOST_PADDING = 4096
_WIDEST_RATIO = 256.0
"""Of the step that an operator's integers come in to that of its output: XNNPACK's own limit."""
_NARROWEST_RATIO = 2.0**-64
"""LiteRT ends the process of a sum of smaller ones."""
_SAME, _VALID = 0, 1  # of the schema's enum Padding


def checked_litert(content: bytes, file: object, batch: int = 1) -> LiteRtModel:
    """Read a model, and refuse one that is not as exports are, or takes too much.

    Args:
        batch: the least number of images that it runs, where that is open.

    Raises:
        BundleError: naming the file, and what is wrong.
    """
    try:
        return known_litert(content, file, batch)
    except ForeignError as error:
        raise foreign(file, str(error)) from error


def known_litert(content: bytes, file: object, batch: int = 1) -> LiteRtModel:
    """As `checked_litert`, of a file that need not be an export.

    Raises:
        ForeignError: it is no model, or has what no EfficientNet has.
        BundleError: it takes too much.
    """
    model = read_litert(content)
    refuse_greedy(_Graph(model, batch).steps(), file)
    return model


def interface_of_litert(model: LiteRtModel) -> Interface:
    """What goes in and comes out."""
    return Interface(
        tuple(_port(model.tensors[each]) for each in model.inputs),
        tuple(_port(model.tensors[each]) for each in model.outputs),
    )


def _port(tensor: Tensor) -> Port:
    spans = [Span.of(side) for side in tensor.shape]
    if tensor.dynamic:
        spans[0] = Span.of(None)
    return Port(frozenset({tensor.name}), tensor.dtype, tuple(spans))


class _Graph:
    """What is known of the tensors, in the order of the operators."""

    def __init__(self, model: LiteRtModel, batch: int) -> None:
        self._model = model
        self._constants = {
            number for number, each in enumerate(model.tensors) if each.data is not None
        }
        self._made = set(model.inputs)
        dynamic = [model.tensors[each] for each in model.inputs if model.tensors[each].dynamic]
        told = dynamic[0].shape[0] if dynamic and dynamic[0].shape else 1
        self._images = max(batch, 1) if dynamic else 1
        if dynamic and told != 1:
            raise ForeignError(f"its open batch is told as {told}")
        if self._made & self._constants:
            raise ForeignError("an input of it is a constant")

    def steps(self) -> Iterator[Step]:
        """Each operator's; a constant takes nothing but the file."""
        yield Step("its input", (), {each: self._bytes(each) for each in self._made})
        for operator in self._model.operators:
            yield self._step(operator)
        missing = set(self._model.outputs) - self._made
        if missing:
            raise ForeignError("an output of it is not computed")

    def _step(self, operator: Operator) -> Step:
        name = self.tensor(operator.output).name or operator.kind
        if operator.output in self._made | self._constants:
            raise ForeignError(f"the tensor {name!r} is made twice")
        read = [each for each in operator.inputs if each != -1]
        if not operator.inputs or operator.inputs[0] == -1:
            raise ForeignError(f"its operator {name!r} reads nothing")
        if not set(read) <= self._made | self._constants:
            raise ForeignError(f"its operator {name!r} reads what is not there yet")
        _check_types(operator, [self.tensor(each) for each in read], self.tensor(operator.output))
        try:
            shape, scratch, multiplications = _RULES[operator.kind](self, operator)
        except (ValueError, IndexError, ArithmeticError) as error:
            raise ForeignError(f"the shape of its operator {name!r} is unknown") from error
        told = self.tensor(operator.output).shape
        if shape != told:
            raise ForeignError(f"its tensor {name!r} is told as {told} and is {shape}")
        if operator.kind == "DEQUANTIZE" and operator.inputs[0] in self._constants:
            self._constants.add(operator.output)
            return Step(name, (), {}, kept=self.tensor(operator.output).bytes)
        self._made.add(operator.output)
        made = {operator.output: self._bytes(operator.output)}
        values = tuple(each for each in read if each not in self._constants)
        return Step(name, values, made, scratch * 4, multiplications * self._images)

    def tensor(self, number: int) -> Tensor:
        """The tensor of that number."""
        return self._model.tensors[number]

    def shape(self, operator: Operator, place: int = 0) -> Shape:
        """Of an input."""
        return self.tensor(operator.inputs[place]).shape

    def constant(self, operator: Operator, place: int) -> Tensor:
        """An input that must be in the file, or be made of what is."""
        if operator.inputs[place] not in self._constants:
            raise ForeignError(f"its {operator.kind} computes its parameters")
        return self.tensor(operator.inputs[place])

    def _bytes(self, number: int) -> int:
        return self.tensor(number).bytes * self._images


def _check_types(operator: Operator, inputs: list[Tensor], output: Tensor) -> None:
    """Refuse types and grids that LiteRT's kernels do not take together."""
    types = [each.dtype for each in inputs]
    kind, first, made = operator.kind, types[0], output.dtype
    if kind in COMPUTE:
        rest = types[1:]
        told = [kinds[: len(rest)] for kinds in _PARAMETERS.get(first, ())]
        fits = made == first and len(types) in (2, 3) and rest in told
        fits = fits and (first == rest[0] or kind != "DEPTHWISE_CONV_2D")
    elif kind == "CAST":
        fits = made == "float32" and first in ("uint8", "int8", "int32")
    elif kind == "QUANTIZE":
        fits = made == "int8" and first in ("float32", "uint8", "int8")
    elif kind == "DEQUANTIZE":
        fits = made == "float32" and first in ("float16", "int8", "uint8")
    elif kind in ("MEAN", "REDUCE_MAX", "PAD", "TRANSPOSE", "RESHAPE"):
        fits = made == first and types[1:] in (["int32"], [])
    else:
        fits = {*types, made} in ({"float32"}, {"int8"})
    if not fits:
        raise ForeignError(f"its operator {output.name!r}, {kind}, has types of no kernel: {types}")
    _check_grids(operator, inputs, output)


def _check_grids(operator: Operator, inputs: list[Tensor], output: Tensor) -> None:
    weights = 1 if operator.kind in COMPUTE else None
    for place, tensor in enumerate([*inputs, output]):
        read = tensor.dtype == "uint8" and operator.kind in ("QUANTIZE", "DEQUANTIZE")
        if tensor.dtype != "int8" and not (read and place == 0):
            continue
        several = len(tensor.scales) > 1
        whole = place != weights and not (operator.kind == "DEQUANTIZE" and tensor.data is not None)
        if not tensor.scales or (several and whole):
            raise ForeignError(f"its tensor {tensor.name!r} has {len(tensor.scales)} scales")
        if several and place == weights and tensor.axis != _AXIS_OF_OUTPUTS[operator.kind]:
            raise ForeignError(f"its tensor {tensor.name!r} has scales along another axis")
        low, high = (0, 255) if tensor.dtype == "uint8" else (-128, 127)
        if any(not low <= each <= high for each in tensor.zero_points):
            raise ForeignError(f"its tensor {tensor.name!r} has a zero point that is none")
    if output.dtype == "int8" and operator.kind in (*COMPUTE, "ADD", "SUB"):
        _check_ratio(operator, inputs, output)


def _check_ratio(operator: Operator, inputs: list[Tensor], output: Tensor) -> None:
    """Refuse steps so far apart that LiteRT ends the process, in whose checks they overflow."""
    steps = [max(tensor.scales) for tensor in inputs[:2]]
    read = math.prod(steps) if operator.kind in COMPUTE else max(steps)
    ratio = read / output.scales[0]
    if ratio >= _WIDEST_RATIO or (operator.kind not in COMPUTE and ratio < _NARROWEST_RATIO):
        raise ForeignError(
            f"its operator {output.name!r}, {operator.kind}, reads steps of {read:.3g} and makes "
            f"steps of {output.scales[0]:.3g}"
        )


def _like_input(graph: _Graph, operator: Operator) -> tuple[Shape, int, int]:
    return graph.shape(operator), 0, 0


def _elementwise(graph: _Graph, operator: Operator) -> tuple[Shape, int, int]:
    first, second = (graph.shape(operator, place) for place in range(len(operator.inputs)))
    rank = max(len(first), len(second))
    padded = [(1,) * (rank - len(shape)) + shape for shape in (first, second)]
    if any(a != b and 1 not in (a, b) for a, b in zip(*padded, strict=True)):
        raise ValueError(padded)
    return tuple(max(a, b) if a and b else 0 for a, b in zip(*padded, strict=True)), 0, 0


def _convolution(graph: _Graph, operator: Operator) -> tuple[Shape, int, int]:
    images, *sides, channels = graph.shape(operator)
    kernel, options = graph.constant(operator, 1).shape, operator.options
    if operator.kind == "CONV_2D":
        outputs, *taps, inputs = kernel
        fits = inputs == channels
    else:
        one, *taps, outputs = kernel
        fits = one == 1 and outputs == channels * options.get("multiplier", 0)
    if not fits or len(sides) != 2 or len(taps) != 2 or not all(kernel):
        raise ValueError(kernel)
    _check_bias(graph, operator, outputs)
    padding, made = options.get("padding", _SAME), []
    for side, tap, axis in zip(sides, taps, ("rows", "columns"), strict=True):
        stride, dilation = options.get(f"stride_{axis}", 0), options.get(f"dilation_{axis}", 1)
        if stride < 1 or dilation < 1 or padding not in (_SAME, _VALID):
            raise ValueError(stride)
        reach = dilation * (tap - 1) + 1
        made.append(-(-side // stride) if padding == _SAME else (side - reach) // stride + 1)
    if min(made) < 1:
        raise ValueError(made)
    shape = (images, *made, outputs)
    per_output = math.prod(taps) * (channels if operator.kind == "CONV_2D" else 1)
    unfolded = 0 if math.prod(taps) == 1 else math.prod(made) * per_output
    return shape, unfolded, math.prod(shape) * per_output


def _dense(graph: _Graph, operator: Operator) -> tuple[Shape, int, int]:
    images, channels = graph.shape(operator)
    outputs, inputs = graph.constant(operator, 1).shape
    if inputs != channels:
        raise ValueError(inputs)
    _check_bias(graph, operator, outputs)
    return (images, outputs), 0, images * inputs * outputs


def _check_bias(graph: _Graph, operator: Operator, outputs: int) -> None:
    if len(operator.inputs) > 2 and operator.inputs[2] != -1:
        bias = graph.constant(operator, 2)
        if bias.shape != (outputs,) or len(bias.scales) not in (0, 1, outputs):
            raise ValueError(bias.shape)


def _reduction(graph: _Graph, operator: Operator) -> tuple[Shape, int, int]:
    shape, axes = graph.shape(operator), graph.constant(operator, 1).numbers()
    keep = operator.options.get("keep_dimensions", 0)
    if not all(0 <= axis < len(shape) for axis in axes) or not axes:
        raise ValueError(axes)
    sides = enumerate(shape)
    return tuple(1 if i in axes else side for i, side in sides if keep or i not in axes), 0, 0


def _pad(graph: _Graph, operator: Operator) -> tuple[Shape, int, int]:
    shape, told = graph.shape(operator), graph.constant(operator, 1)
    amounts = told.numbers()
    if told.shape != (len(shape), 2) or not all(0 <= each <= _MOST_PADDING for each in amounts):
        raise ValueError(amounts)
    added = zip(shape, amounts[::2], amounts[1::2], strict=True)
    return tuple(side + before + after for side, before, after in added), 0, 0


def _transpose(graph: _Graph, operator: Operator) -> tuple[Shape, int, int]:
    shape, order = graph.shape(operator), graph.constant(operator, 1).numbers()
    if sorted(order) != list(range(len(shape))):
        raise ValueError(order)
    return tuple(shape[axis] for axis in order), 0, 0


def _reshape(graph: _Graph, operator: Operator) -> tuple[Shape, int, int]:
    shape, wanted = graph.shape(operator), graph.constant(operator, 1).numbers()
    known = math.prod(side for side in wanted if side != -1)
    if list(wanted).count(-1) > 1 or any(side < -1 for side in wanted) or not known:
        raise ValueError(wanted)
    made = tuple(math.prod(shape) // known if side == -1 else side for side in wanted)
    if math.prod(made) != math.prod(shape):
        raise ValueError(wanted)
    return made, 0, 0


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("ADD", "MUL", "SUB"), _elementwise),
    **dict.fromkeys(("MEAN", "REDUCE_MAX"), _reduction),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), _convolution),
    **dict.fromkeys(
        ("CAST", "DEQUANTIZE", "HARD_SWISH", "LOGISTIC", "QUANTIZE", "RELU", "RELU6", "SOFTMAX"),
        _like_input,
    ),
    "FULLY_CONNECTED": _dense,
    "PAD": _pad,
    "RESHAPE": _reshape,
    "TRANSPOSE": _transpose,
}
