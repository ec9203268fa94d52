"""An ONNX graph on its way to LiteRT: which tensor is which, and how it is laid out.

ONNX has images as (N, C, H, W), LiteRT's kernels as (N, H, W, C). Tensors of four dimensions are
kept in LiteRT's layout from the first node that tells channels from rows and columns: a
convolution, or the transposition that makes (N, C, H, W) of the pixels, which then does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from effnet_edge.errors import BackendError
from effnet_edge.graphs.tensors import constants
from effnet_export.litert.graph import Grid, LiteRtGraph, Tensor
from effnet_export.litert.integers import IntegerNodes, integer_vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

TO_CHANNELS_LAST = (0, 2, 3, 1)
TO_CHANNELS_FIRST = (0, 3, 1, 2)


@dataclass(frozen=True)
class Laid:
    """A tensor and whether it is (N, H, W, C) where ONNX has (N, C, H, W)."""

    tensor: Tensor
    channels_last: bool = False

    @property
    def onnx_shape(self) -> tuple[int, ...]:
        """Its shape as ONNX has it."""
        shape = self.tensor.shape
        return tuple(shape[axis] for axis in TO_CHANNELS_FIRST) if self.channels_last else shape


class Conversion:
    """What has been converted so far. Rules read from it and append to it.

    What is computed in integers is an int8 tensor here from where QuantizeLinear makes it; a node
    that reads it and computes in floating point gets it through a DEQUANTIZE.

    Args:
        fp16_weights: store the weights of convolutions and dense layers in FP16, where they are
            floating point.

    Attributes:
        integers: which nodes compute in integers, and on which grids.
    """

    def __init__(self, graph: onnx.GraphProto, *, fp16_weights: bool) -> None:
        dimension = graph.input[0].type.tensor_type.shape.dim[0].dim_value
        self.graph = LiteRtGraph(dimension or None)
        self.integers = IntegerNodes(graph)
        self._fp16_weights = fp16_weights
        self._constants = constants(graph)
        self._laid: dict[str, Laid] = {}
        self._dequantized: dict[str, Laid] = {}
        self._in_integers = False

    def add_input(self, value: onnx.ValueInfoProto) -> Tensor:
        """The graph's input as ONNX has it."""
        described = value.type.tensor_type
        shape = [each.dim_value or 1 for each in described.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(described.elem_type).name
        self._laid[value.name] = Laid(self.graph.value(value.name, shape, dtype))
        return self._laid[value.name].tensor

    def begin(self, node: onnx.NodeProto) -> None:
        """Tell whether the next rule computes in integers: its node does, and all that it reads."""
        values = [self._laid[name] for name in node.input if name in self._laid]
        all_int8 = all(each.tensor.dtype == "int8" for each in values)
        self._in_integers = self.integers.has_grids(node) and all_int8

    @property
    def in_integers(self) -> bool:
        """Whether the node at hand computes in integers."""
        return self._in_integers

    def result(self, name: str) -> Tensor:
        """An output of the graph, laid out as ONNX has it."""
        self._in_integers = False
        laid = self.laid(name)
        if not laid.channels_last:
            return laid.tensor
        return self._transposed(laid.tensor, TO_CHANNELS_FIRST, f"{name}/Transpose")

    def constant(self, node: onnx.NodeProto, place: int) -> NDArray[Any] | None:
        """The values of an input of the node; None where it is computed, or not there."""
        return self._constants.get(node.input[place]) if place < len(node.input) else None

    def is_constant(self, name: str) -> bool:
        """Whether its values are in the graph."""
        return name in self._constants

    def laid(self, name: str) -> Laid:
        """The tensor of that name, as the node at hand reads it."""
        laid = self._laid[name]
        if self._in_integers or laid.tensor.dtype != "int8":
            return laid
        if name not in self._dequantized:
            self._dequantized[name] = self.dequantized(laid, name)
        return self._dequantized[name]

    def dequantized(self, laid: Laid, name: str) -> Laid:
        """What a tensor's integers stand for, float32, by an operator; `name` begins its name."""
        output = self.graph.value(f"{name}/DEQUANTIZE", laid.tensor.shape)
        self.graph.operator("DEQUANTIZE", [laid.tensor], output)
        return Laid(output, laid.channels_last)

    def stored(self, name: str) -> Laid:
        """The tensor of that name, in integers if it is."""
        return self._laid[name]

    def channels_last(self, node: onnx.NodeProto) -> Tensor:
        """The first input of a node that takes images, (N, H, W, C)."""
        name = node.input[0]
        laid = self.laid(name)
        if len(laid.tensor.shape) != 4:
            raise unknown(node, f"its input has {len(laid.tensor.shape)} dimensions")
        if not laid.channels_last:
            tensor = self._transposed(laid.tensor, TO_CHANNELS_LAST, f"{name}/Transpose")
            laid = Laid(tensor, channels_last=True)
            read = self._laid if name not in self._dequantized else self._dequantized
            read[name] = laid
        return laid.tensor

    def operand(self, node: onnx.NodeProto, place: int, *, channels_last: bool) -> Tensor:
        """An input of an elementwise node, a value or a constant, in the layout of the others."""
        name = node.input[place]
        values = self._constants.get(name)
        if values is None:
            laid = self.laid(name)
            if channels_last and not laid.channels_last:
                raise unknown(node, "its inputs are laid out in different ways")
            return laid.tensor
        if channels_last:
            whole = values.reshape((1,) * (4 - values.ndim) + values.shape)
            values = whole.transpose(TO_CHANNELS_LAST)
            while values.ndim > 1 and values.shape[0] == 1:
                values = values[0]
        if self._in_integers:
            return self.graph.constant(name, *integer_vector(np.atleast_1d(values)))
        return self.graph.constant(name, np.atleast_1d(values))

    def weight(self, name: str, values: NDArray[np.float32]) -> Tensor:
        """A constant that is stored as the weights are."""
        if self._fp16_weights:
            return self.graph.stored_as(name, values, "float16")
        return self.graph.constant(name, values)

    def same(self, node: onnx.NodeProto, laid: Laid) -> None:
        """What the node gives is that tensor."""
        self._laid[node.output[0]] = laid

    def append(
        self,
        node: onnx.NodeProto,
        kind: str,
        inputs: Sequence[Tensor],
        shape: Sequence[int],
        options: str = "",
        *,
        channels_last: bool = False,
        **given: Any,
    ) -> None:
        """An operator that gives what the node gives, in integers if all else is, of that shape."""
        name, grid = node.output[0], None
        if self._in_integers:
            name, grid = self.integers.output(node)
        output = self.graph.value(name, shape, "float32" if grid is None else "int8", grid)
        self.graph.operator(kind, inputs, output, options, **given)
        self._laid[node.output[0]] = Laid(output, channels_last)

    def quantize(self, node: onnx.NodeProto, laid: Laid, grid: Grid) -> None:
        """An operator that rounds a tensor to what the node gives."""
        output = self.graph.value(node.output[0], laid.tensor.shape, "int8", grid)
        self.graph.operator("QUANTIZE", [laid.tensor], output)
        self._laid[node.output[0]] = Laid(output, laid.channels_last)

    def _transposed(self, tensor: Tensor, order: Sequence[int], name: str) -> Tensor:
        axes = self.graph.constant(f"{name}/axes", np.asarray(order, np.int32))
        shape = [tensor.shape[axis] for axis in order]
        grid = self.graph.grid_of(tensor)
        output = self.graph.value(name, shape, tensor.dtype, grid)
        return self.graph.operator("TRANSPOSE", [tensor, axes], output, "TransposeOptions")


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value, or the default where the node leaves it out."""
    found = [each for each in node.attribute if each.name == name]
    return helper.get_attribute_value(found[0]) if found else default


def unknown(node: onnx.NodeProto, why: str) -> BackendError:
    """The one line for a node that is not converted."""
    return BackendError(
        f"LiteRT: the node {node.name or node.output[0]!r} ({node.op_type}) cannot be converted: "
        f"{why}: choose another --target"
    )
