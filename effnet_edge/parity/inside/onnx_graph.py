"""An ONNX graph opened up: its nodes described, its inner tensors shown and replaced."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.graphs.editing import opened
from effnet_edge.graphs.tensors import constants, dequantized
from effnet_edge.parity.inside.tracing import LOGITS, Grid, Kernel, Parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

_GIVEN = "/given"
_COMPUTING = frozenset({"Conv", "Gemm", "MatMul"})
# ONNX gives convolutions these where the attribute is absent.
_DEFAULT_PADS = (0, 0, 0, 0)
_DEFAULT_STRIDES = (1, 1)


class OnnxGraph:
    """A model's graph; one tensor is called "logits", whatever its name in the file is.

    Args:
        logits: that tensor; the first output if None.
    """

    def __init__(self, model: onnx.ModelProto, logits: str | None = None) -> None:
        self._model = model
        graph = model.graph
        self._output = logits or graph.output[0].name
        self._makers = {name: node for node in graph.node for name in node.output if name}

    @property
    def stored_precision(self) -> str:
        """Of the constants: "FP16" where any is stored so, otherwise "FP32"."""
        halves = (value.dtype == np.float16 for value in self._constants.values())
        return "FP16" if any(halves) else "FP32"

    @property
    def written_precision(self) -> str:
        """What a strongly typed engine computes in: "INT8" with Q/DQ pairs, or as it is stored."""
        quantizes = any(node.op_type == "QuantizeLinear" for node in self._model.graph.node)
        return "INT8" if quantizes else self.stored_precision

    def kernels(self) -> list[Kernel]:
        """The nodes whose output depends on the input, in topological order."""
        return [
            Kernel(
                tuple(self._public(name) for name in node.output if name),
                _operation(node),
                self._precision(node),
            )
            for node in self._model.graph.node
            if not self._fixed.issuperset(node.output)
        ]

    def grids(self) -> list[Grid]:
        """Of the QuantizeLinear nodes with one constant scale for the whole tensor."""
        found = (
            self._grid(node)
            for node in self._model.graph.node
            if node.op_type == "QuantizeLinear" and node.input[0] not in self._constants
        )
        return [grid for grid in found if grid is not None]

    def parameters(self, tensor: str) -> Parameters | None:
        """Of the Conv, Gemm or MatMul node that gives this tensor, where they are constants."""
        node = self._makers.get(self._private(tensor))
        if node is None or node.op_type not in _COMPUTING:
            return None
        weight = self._constant(node.input[1])
        if weight is None:
            return None
        bias = self._constant(node.input[2]) if len(node.input) > 2 else None
        attributes = {each.name: each for each in node.attribute}
        if node.op_type != "Conv":
            transposed = "transB" in attributes and attributes["transB"].i
            return Parameters(weight if transposed else weight.T, bias, None, None)
        maker = self._makers.get(node.input[0])
        padded_before = maker is not None and maker.op_type == "Pad"
        own_pads = tuple(attributes["pads"].ints) if "pads" in attributes else _DEFAULT_PADS
        pads = None if padded_before else own_pads
        strides = tuple(attributes["strides"].ints) if "strides" in attributes else _DEFAULT_STRIDES
        return Parameters(weight, bias, pads, strides)

    def traced(self, names: Sequence[str], given: Sequence[str]) -> onnx.ModelProto:
        """The model with `names` as its outputs, where readers of `given` read new inputs."""
        inputs = {self._private(name): self.given_input(name) for name in given}
        return opened(self._model, [self._private(name) for name in names], inputs)

    def given_input(self, name: str) -> str:
        """The input that stands for a tensor whose value is given."""
        return self._private(name) + _GIVEN

    @cached_property
    def _constants(self) -> dict[str, NDArray[np.generic]]:
        return constants(self._model.graph)

    @cached_property
    def _fixed(self) -> set[str]:
        """The tensors that are the same whatever the input, such as dequantized weights."""
        fixed = set(self._constants) | {""}
        for node in self._model.graph.node:
            if fixed.issuperset(node.input):
                fixed.update(node.output)
        return fixed

    def _constant(self, name: str) -> NDArray[np.float32] | None:
        """A constant tensor, through its DequantizeLinear where it is stored as integers."""
        if name in self._constants:
            return self._constants[name].astype(np.float32)
        node = self._makers.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        return dequantized(node, self._constants)

    def _grid(self, node: onnx.NodeProto) -> Grid | None:
        scale = self._constants.get(node.input[1])
        zero_point = self._constants.get(node.input[2]) if len(node.input) > 2 else None
        if scale is None or zero_point is None or scale.size > 1:
            return None
        kind = np.iinfo(str(zero_point.dtype))
        step, zero = float(scale.item()), int(zero_point.item())
        return Grid(
            node=node.output[0],
            tensor=self._public(node.input[0]),
            low=(kind.min - zero) * step,
            high=(kind.max - zero) * step,
            levels=kind.max - kind.min + 1,
        )

    def _precision(self, node: onnx.NodeProto) -> str:
        makers = [self._makers[name].op_type for name in node.input if name in self._makers]
        return "INT8" if "DequantizeLinear" in makers and node.op_type in _COMPUTING else "FP32"

    def _public(self, name: str) -> str:
        return LOGITS if name == self._output else name

    def _private(self, name: str) -> str:
        return self._output if name == LOGITS else name


def _operation(node: onnx.NodeProto) -> str:
    pads = next((list(each.ints) for each in node.attribute if each.name == "pads"), None)
    return f"{node.op_type}, pads {pads}" if pads is not None else node.op_type
