"""Maps behind gates rounded to bytes in fewer operations than OpenVINO's own, on x86.

A convolution's kernel rounds what it gives itself. The product of a map with its gate has a kernel
of its own, in which OpenVINO spells a FakeQuantize out: for each value two comparisons, a
multiplication, a subtraction, a rounding, another multiplication and an addition. Here the gate,
one number a channel, gives the product in steps; one addition moves it to where the grid begins and
half a step beyond; and the conversion to bytes cuts the fraction off (docs/figures.md, "Gates").

It is done to the model that is compiled, not to its file: OpenVINO's plugin for ARM fails on
convolutions of bytes that no FakeQuantize made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.runtime.openvino_constants import constant_of, is_constant
from effnet_edge.runtime.openvino_core import import_openvino

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDING = "FakeQuantize"
_LARGEST = 255
_HALF = 0.5


def with_converted_gates(model: Any) -> Any:
    """A copy of an `openvino.Model` that rounds as said above, or the model where nothing does.

    Left alone is what is not rounded to one grid of 256 levels for the whole tensor, and what
    others read than one 1×1 convolution of integer weights. The copy's results differ from the
    model's as those of two engines do: by which way a value goes that lies halfway between two
    integers.
    """
    if not _roundings(model):
        return model
    copied = model.clone()
    roundings = _roundings(copied)
    gated = [found for node in roundings if (found := _gated_map(node)) is not None]
    # Without any FakeQuantize OpenVINO looks for no integers, and computes in floating point.
    if len(gated) in (0, len(roundings)):
        return model
    for each in gated:
        _convert(each)
    return copied


def _roundings(model: Any) -> list[Any]:
    return [node for node in model.get_ops() if node.get_type_name() == _ROUNDING]


@dataclass(frozen=True)
class _GatedMap:
    """What lies between a gate and the convolution that reads its product.

    Attributes:
        product: the Multiply of the map and the gate.
        shift: the Add of a constant to it; None where there is none.
        rounding: the FakeQuantize.
        convolution, bias: that read it, and the Add behind.
        low, step: of the grid: real = integer · step + low.
    """

    product: Any
    shift: Any | None
    rounding: Any
    convolution: Any
    bias: Any
    low: float
    step: float


def _gated_map(rounding: Any) -> _GatedMap | None:
    """None where a FakeQuantize is of no product with a gate, or not as said above."""
    grid = _grid(rounding)
    if grid is None:
        return None
    product, shift = rounding.input_value(0).get_node(), None
    if product.get_type_name() == "Add":
        product, shift = product.input_value(0).get_node(), product
    convolution = _only_reader(rounding, "Convolution")
    bias = _only_reader(convolution, "Add") if convolution is not None else None
    if bias is None or not (_is_product_with_gate(product) and _is_pointwise(convolution)):
        return None
    added = [node for node in (shift, bias) if node is not None]
    if not all(is_constant(node.input_value(1)) for node in added):
        return None
    if any(_only_reader(node) is None for node in (product, shift) if node is not None):
        return None
    return _GatedMap(product, shift, rounding, convolution, bias, *grid)


def _convert(gated: _GatedMap) -> None:
    """Let the convolution read integers · step; its bias makes up for where the grid begins."""
    operations = import_openvino().opset13
    weights = gated.convolution.input_value(1).get_node()
    integers, scales = (_constant_at(weights, at) for at in (0, 1))
    sums = integers.sum((1, 2, 3)) * scales.reshape(-1)
    bias = _constant_at(gated.bias, 1) + gated.low * sums.reshape(1, -1, 1, 1)
    gated.bias.input(1).replace_source_output(_constant(bias))

    shift = 0.0 if gated.shift is None else _constant_at(gated.shift, 1)
    moved = (shift - gated.low) / gated.step + _HALF
    map_port, gate_port = (gated.product.input_value(at) for at in (0, 1))
    # The names of the nodes are what the compiled graph is told by.
    name = gated.product.get_friendly_name()
    product = operations.multiply(map_port, _over(gate_port, gated.step), name=name)
    clamped = operations.clamp(operations.add(product, _constant(moved)), 0.0, float(_LARGEST))
    rounded = operations.convert(clamped, "u8", name=gated.rounding.get_friendly_name())
    read = operations.multiply(operations.convert(rounded, "f32"), _constant(gated.step))
    gated.convolution.input(0).replace_source_output(read.output(0))


def _over(gate: Any, step: float) -> Any:
    """A gate in steps: one multiplication with the constant that it is multiplied by already."""
    operations, node = import_openvino().opset13, gate.get_node()
    if node.get_type_name() != "Multiply" or not is_constant(node.input_value(1)):
        return operations.multiply(gate, _constant(1 / step))
    factors, name = _constant_at(node, 1), node.get_friendly_name()
    return operations.multiply(node.input_value(0), _constant(factors / step), name=name)


def _grid(rounding: Any) -> tuple[float, float] | None:
    """The lowest value and the step of a FakeQuantize; None for other grids."""
    if rounding.get_attributes()["levels"] != _LARGEST + 1:
        return None
    low, high, *given = (_number(rounding.input_value(at)) for at in range(1, 5))
    step = (high - low) / _LARGEST
    # A multiplication by 1 OpenVINO leaves out, and then takes the bytes for floating point.
    fits = given == [low, high] and step > 0 and np.float32(step) != 1
    return (low, step) if fits else None


def _is_product_with_gate(node: Any) -> bool:
    """Whether a map is multiplied by one number a channel, which is computed."""
    if node.get_type_name() != "Multiply" or is_constant(node.input_value(1)):
        return False
    sizes, gate_sizes = (_sizes(node.input_value(at)) for at in (0, 1))
    return len(sizes) == len(gate_sizes) == 4 and gate_sizes[2:] == [1, 1] != sizes[2:]


def _is_pointwise(convolution: Any) -> bool:
    """Whether it is 1×1, without a border, and its weights are integers times scales."""
    weights, attributes = convolution.input_value(1).get_node(), convolution.get_attributes()
    if weights.get_type_name() != "Multiply" or any(
        attributes[pads] != [0, 0] for pads in ("pads_begin", "pads_end")
    ):
        return False
    integers, scales = (weights.input_value(at) for at in (0, 1))
    if not (is_constant(integers) and is_constant(scales)):
        return False
    channels, *others = integers.get_shape()
    of_outputs = list(scales.get_shape()) == [channels, 1, 1, 1]
    return others[1:] == [1, 1] and (of_outputs or math.prod(scales.get_shape()) == 1)


def _sizes(port: Any) -> list[Any]:
    """Of each axis; none where the rank itself is unknown."""
    shape = port.get_partial_shape()
    return list(shape) if shape.rank.is_static else []


def _only_reader(node: Any, kind: str | None = None) -> Any | None:
    """The one node that reads it, if it is of that kind."""
    readers = [reader.get_node() for reader in node.output(0).get_target_inputs()]
    if len(readers) != 1 or (kind is not None and readers[0].get_type_name() != kind):
        return None
    return readers[0]


def _constant_at(node: Any, index: int) -> NDArray[np.float64]:
    """What is known to be a constant at this input of a node."""
    values = constant_of(node.input_value(index))
    assert values is not None
    return values.astype(np.float64)


def _number(port: Any) -> float:
    """A constant of one element; NaN for others, and for what is computed."""
    values = constant_of(port)
    return float(values.item()) if values is not None and values.size == 1 else math.nan


def _constant(values: NDArray[np.float64] | float) -> Any:
    return import_openvino().opset13.constant(np.asarray(values, np.float32)).output(0)
