"""A LiteRT graph under construction: tensors, constants, operators, in the schema's terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.graphs.litert_file import SCHEMA_VERSION, import_schema, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# The first version of an operator that has everything we use: its types, broadcasting in Mul, ….
# LiteRT refuses a version that it does not know.
_VERSIONS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "DEQUANTIZE": 2}
HYBRID_VERSIONS = {"CONV_2D": 5, "FULLY_CONNECTED": 12}
"""Of those that take floats and have integer weights, a scale a channel."""


@dataclass(frozen=True)
class Grid:
    """What integers stand for: (integer − zero point) · scale.

    Attributes:
        scales: one for the whole tensor, or one a slice of `axis`; all zero points are the same.
    """

    scales: tuple[float, ...]
    zero_point: int = 0
    axis: int = 0


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph.

    Attributes:
        index: its number in the graph.
        shape: as LiteRT has it; a dynamic batch counts as 1.
        dtype: NumPy's name of its element type.
    """

    index: int
    shape: tuple[int, ...]
    dtype: str


class LiteRtGraph:
    """Collects a graph; operators are in the order in which they run.

    Args:
        batch: the number of images, or None where it is dynamic.
    """

    def __init__(self, batch: int | None) -> None:
        self.batch = batch
        self._schema = import_schema()
        self._buffers: list[Any] = [self._schema.BufferT()]  # the first one is empty by convention
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._grids: dict[int, Grid] = {}
        self._codes: dict[tuple[str, int], int] = {}

    def value(
        self, name: str, shape: Sequence[int], dtype: str = "float32", grid: Grid | None = None
    ) -> Tensor:
        """A tensor that is computed, or given; the batch is the first of its dimensions."""
        return self._tensor(name, shape, dtype, 0, grid, dynamic=self.batch is None)

    def stored_as(self, name: str, values: NDArray[np.float32], dtype: str) -> Tensor:
        """A constant of float32 that the file has in fewer bits."""
        stored = self.constant(f"{name}/{dtype}", values.astype(dtype))
        return self.operator(
            "DEQUANTIZE", [stored], self._tensor(name, values.shape, "float32", 0, dynamic=False)
        )

    def constant(self, name: str, values: NDArray[np.generic], grid: Grid | None = None) -> Tensor:
        """A tensor whose values are in the file."""
        buffer = self._schema.BufferT()
        buffer.data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._buffers.append(buffer)
        number = len(self._buffers) - 1
        return self._tensor(name, values.shape, values.dtype.name, number, grid, dynamic=False)

    def put_on_grid(self, tensor: Tensor, grid: Grid) -> None:
        """Tell what the integers of a tensor stand for."""
        told = self._schema.QuantizationParametersT()
        told.scale, told.quantizedDimension = list(grid.scales), grid.axis
        told.zeroPoint = [grid.zero_point] * len(grid.scales)
        self._tensors[tensor.index].quantization = told
        self._grids[tensor.index] = grid

    def grid_of(self, tensor: Tensor) -> Grid | None:
        """What the integers of a tensor stand for; None where it has no grid."""
        return self._grids.get(tensor.index)

    def operator(
        self,
        kind: str,
        inputs: Sequence[Tensor],
        output: Tensor,
        options: str = "",
        version: int | None = None,
        **given: Any,
    ) -> Tensor:
        """Append an operator and give its output.

        Args:
            kind: of the schema's `BuiltinOperator`.
            options: the schema's table of its options, which are `given`.
            version: of the operator; None for the one that has all that is usual here.
        """
        operator = self._schema.OperatorT()
        code = kind, version or _VERSIONS.get(kind, 1)
        operator.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        operator.inputs = [each.index for each in inputs]
        operator.outputs = [output.index]
        if options:
            operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self._schema, f"{options}T")()
            for name, setting in given.items():
                setattr(operator.builtinOptions, name, setting)
        self._operators.append(operator)
        return output

    def packed(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bytes:
        """The file."""
        schema = self._schema
        subgraph = schema.SubGraphT()
        subgraph.tensors, subgraph.operators = self._tensors, self._operators
        subgraph.inputs = [each.index for each in inputs]
        subgraph.outputs = [each.index for each in outputs]
        model = schema.ModelT()
        model.version = SCHEMA_VERSION
        model.description = "effnet-edge"
        model.operatorCodes = [self._code(*code) for code in self._codes]
        model.subgraphs, model.buffers = [subgraph], self._buffers
        return pack(model)

    def _tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        buffer: int,
        grid: Grid | None = None,
        *,
        dynamic: bool,
    ) -> Tensor:
        tensor = self._schema.TensorT()
        tensor.name, tensor.buffer = name, buffer
        tensor.shape = [int(side) for side in shape]
        tensor.type = getattr(self._schema.TensorType, dtype.upper())
        tensor.hasRank = True
        if dynamic:
            tensor.shapeSignature = [-1, *tensor.shape[1:]]
        self._tensors.append(tensor)
        made = Tensor(len(self._tensors) - 1, tuple(tensor.shape), dtype)
        if grid is not None:
            self.put_on_grid(made, grid)
        return made

    def _code(self, kind: str, version: int) -> Any:
        number = getattr(self._schema.BuiltinOperator, kind)
        code = self._schema.OperatorCodeT()
        code.builtinCode = number
        code.deprecatedBuiltinCode = min(number, 127)
        code.version = version
        return code
