"""What of a graph with QuantizeLinear and DequantizeLinear LiteRT computes in integers.

A node does where everything that it reads comes from a DequantizeLinear, and a QuantizeLinear alone
reads what it gives: LiteRT's operator then takes and gives the integers.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.graphs.tensors import constants
from effnet_export.litert.graph import Grid

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_SATURATING = ("Relu", "Clip", "Min")
_LOWEST, _HIGHEST = -128, 127
_LARGEST_WEIGHT = 127


class IntegerNodes:
    """The grids of a graph's tensors, and its integer weights."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._constants: dict[str, NDArray[Any]] = constants(graph)
        self._makers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self._outputs: dict[str, tuple[str, Grid]] = {}
        self.saturating: set[str] = set()
        """What nodes give that cut off at the ends of the grid behind them, as rounding does."""
        for node in graph.node:
            if node.op_type == "QuantizeLinear" and self.grid(node) is not None:
                self._find(node)

    def grid(self, node: onnx.NodeProto) -> Grid | None:
        """That of a QuantizeLinear or DequantizeLinear; None where it is none of int8."""
        scale, zero = (self._constants.get(name) for name in node.input[1:])
        if scale is None or zero is None or scale.size != 1 or zero.dtype != np.int8:
            return None
        return Grid((float(scale),), int(zero))

    def has_grids(self, node: onnx.NodeProto) -> bool:
        """Whether its output is rounded, and its weights, where it has any, are integers."""
        if node.output[0] not in self._outputs:
            return False
        weighted = node.op_type in ("Conv", "Gemm", "MatMul")
        return not weighted or self.weight(node.input[1]) is not None

    def output(self, node: onnx.NodeProto) -> tuple[str, Grid]:
        """What the node's output is called, and its grid; see `has_grids`."""
        return self._outputs[node.output[0]]

    def weight(self, name: str) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
        """Integers, and a scale an output channel; None where they are floating point."""
        maker = self._makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return None
        integers = self._constants.get(maker.input[0])
        scales = self._constants.get(maker.input[1])
        return None if integers is None or scales is None else (integers, scales)

    def _find(self, node: onnx.NodeProto) -> None:
        """Go back from a QuantizeLinear over what does no more than it."""
        grid, name = self.grid(node), node.input[0]
        assert grid is not None
        called = name
        while len(self._readers[name]) == 1:
            self._outputs[name] = called, grid
            maker = self._makers.get(name)
            if maker is None or not self._saturates(maker, grid):
                return
            self.saturating.add(maker.output[0])
            name = maker.input[0]

    def _saturates(self, node: onnx.NodeProto, grid: Grid) -> bool:
        """Whether all that it cuts off lies outside of the grid."""
        if node.op_type not in _SATURATING or grid.zero_point != _LOWEST:
            return False
        limits = [self._constants.get(name) for name in node.input[1:]]
        highest = grid.scales[0] * (_HIGHEST - _LOWEST)
        tolerated = highest - grid.scales[0] / 2
        if node.op_type == "Clip":
            low, high = limits
            return low == 0 and high is not None and bool((high >= tolerated).all())
        return all(limit is not None and bool((limit >= tolerated).all()) for limit in limits)


def integer_vector(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], Grid]:
    """Constants as integers, the largest of them 127."""
    scale = float(np.abs(values).max()) / _LARGEST_WEIGHT or 1.0
    return np.rint(values / scale).astype(np.int8), Grid((scale,))
