"""Q/DQ pairs and integer weights, written into an exported graph.

A pair stands at the input of every convolution and of the classifier, and nowhere else:
there the backends fuse the activation and the requantization before it into the producing
convolution. For an engine that rounds every output, a pair stands behind each of these instead.
Weights are int8 with a scale an output channel and zero point 0.

These are also TensorRT's rules (NVIDIA TensorRT documentation, "Working with Quantized Types",
"Q/DQ Layer-Placement Recommendations"): quantize all inputs of weighted operations; leave their
outputs alone; quantize both inputs of a residual addition or, as here, neither. SiLU and the gate
stay between the DequantizeLinear of one convolution and the QuantizeLinear of the next. TensorRT
takes activations with one scale a tensor and zero point 0 only, which is the symmetric scheme.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from effnet_calibration.path import STEM
from effnet_edge.graphs.editing import copied, replace_nodes
from effnet_edge.graphs.tensors import add_constant, set_value, value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effnet_calibration.integer_weights import QuantizedWeight
    from effnet_calibration.pixel_stem import PixelStem
    from effnet_calibration.quantized_network import QuantizedNetwork
    from effnet_calibration.schemes import TensorQuantization

PREPROCESS = "preprocess"
PIXEL_STEP = 1 / 255


def quantize_graph(model: onnx.ModelProto, quantized: QuantizedNetwork) -> onnx.ModelProto:
    """The Q/DQ form of the graph that `quantized.network` was exported to.

    Nodes are found by the names that the export gave them, those of the modules. Where the graph
    takes uint8 pixels and the zero point may move, the stem reads them as they are. Otherwise the
    stem is as it was: no grid with zero point 0 holds the pixels and the padding, and rounding
    them takes the KL divergence of B0 from 0.0070 to 0.0078 nats.
    """
    result = copied(model)
    graph = result.graph
    writer = _Writer(graph)
    weights = dict(quantized.weights)
    takes_pixels = graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    if quantized.pixel_stem is not None and takes_pixels:
        writer.pixels_to_stem(quantized.pixel_stem, one_grid=quantized.scheme.rounds_outputs)
        weights[STEM] = quantized.pixel_stem.weight
    for node in list(graph.node):
        if node.name in weights:
            writer.quantize_weight(node, weights[node.name])
        if node.name in quantized.inputs:
            writer.quantize_input(node, quantized.inputs[node.name])
        if node.name in quantized.outputs:
            writer.quantize_output(node, quantized.outputs[node.name])
    writer.finish()
    onnx.checker.check_model(result)
    return result


def without_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its activations left unquantized, and its weights rounded as they are.

    A rounding to INT8 turns the least change before it into a whole step or into none: two graphs
    with such roundings differ by noise, and what else is wrong with one of them hides in it.
    """
    result = copied(model)
    makers = {name: node for node in result.graph.node for name in node.output}
    sources: dict[str, str] = {}
    for node in result.graph.node:
        node.input[:] = [sources.get(name, name) for name in node.input]
        maker = makers.get(node.input[0])
        if node.op_type != "DequantizeLinear" or maker is None:
            continue
        # Pixels come back with another zero point: that pair is the normalization.
        if maker.op_type == "QuantizeLinear" and maker.input[1:] == node.input[1:]:
            sources[node.output[0]] = maker.input[0]
    return result


class _Writer:
    """A graph under change. New nodes go before the node that reads them."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._before: dict[str, list[onnx.NodeProto]] = {}
        self._after: dict[str, list[onnx.NodeProto]] = {}
        self._pairs: dict[tuple[str, TensorQuantization], str] = {}
        self._rounded: dict[str, str] = {}

    def quantize_weight(self, node: onnx.NodeProto, weight: QuantizedWeight) -> None:
        """Replace the weight initializer by integers and a DequantizeLinear."""
        name = node.input[1]
        zeros = np.zeros(len(weight.scales), np.int8)
        set_value(self._graph, name, weight.integers.numpy())
        add_constant(self._graph, f"{name}/scale", weight.scales.numpy())
        add_constant(self._graph, f"{name}/zero_point", zeros)
        inputs = [name, f"{name}/scale", f"{name}/zero_point"]
        self._insert(node, "DequantizeLinear", inputs, f"{name}/DequantizeLinear", axis=0)
        node.input[1] = f"{name}/DequantizeLinear"

    def quantize_input(self, node: onnx.NodeProto, grid: TensorQuantization) -> None:
        """Put a pair before the node; readers of one tensor on one grid share it."""
        name = node.input[0]
        if (name, grid) not in self._pairs:
            pair, self._pairs[name, grid] = self._pair(name, f"{node.name}/input", grid)
            self._before.setdefault(node.name, []).extend(pair)
        node.input[0] = self._pairs[name, grid]

    def quantize_output(self, node: onnx.NodeProto, grid: TensorQuantization) -> None:
        """Put a pair behind the node, for all who read it."""
        name = node.output[0]
        self._after[node.name], self._rounded[name] = self._pair(name, node.name, grid)

    def pixels_to_stem(self, stem: PixelStem, *, one_grid: bool) -> None:
        """Let the stem read uint8 pixels; its weight is still to be replaced."""
        bias = f"{STEM}.bias"
        restored = value(self._graph, bias) + stem.bias.numpy()
        set_value(self._graph, bias, restored.astype(np.float32))
        zero_point = stem.zero_point.numpy()
        for node in [each for each in self._graph.node if each.name.startswith(PREPROCESS)]:
            self._graph.node.remove(node)
        if one_grid:
            self._read_pixels(int(zero_point[0]))
        else:
            self._replace_normalization(zero_point)

    def _read_pixels(self, zero_point: int) -> None:
        """Pixels are integers of the stem's own grid."""
        graph = self._graph
        stem = next(node for node in graph.node if node.name == STEM)
        add_constant(graph, "image/scale", np.asarray(PIXEL_STEP, np.float32))
        add_constant(graph, "image/zero_point", np.asarray(zero_point, np.uint8))
        nchw = f"{PREPROCESS}/Transpose"
        self._insert(stem, "Transpose", [graph.input[0].name], nchw, perm=[0, 3, 1, 2])
        self._insert(
            stem, "DequantizeLinear", [nchw, "image/scale", "image/zero_point"], PREPROCESS
        )

    def _replace_normalization(self, zero_point: NDArray[np.float64]) -> None:
        """A pair that leaves every pixel as it is, in place of the preprocessing module.

        A DequantizeLinear alone would say the same, but behind a Transpose OpenVINO recognizes
        only a whole pair as the input of an INT8 convolution, and drops one whose scale is 1.
        """
        graph = self._graph
        stem = next(node for node in graph.node if node.name == STEM)
        add_constant(self._graph, "image/step", np.asarray(PIXEL_STEP, np.float32))
        add_constant(self._graph, "image/scale", np.full(len(zero_point), PIXEL_STEP, np.float32))
        add_constant(self._graph, "image/zero", np.zeros(len(zero_point), np.uint8))
        add_constant(self._graph, "image/zero_point", zero_point.astype(np.uint8))
        nchw, floats, unit, integers = (
            f"{PREPROCESS}/{step}" for step in ("Transpose", "Cast", "Mul", "QuantizeLinear")
        )
        self._insert(stem, "Transpose", [graph.input[0].name], nchw, perm=[0, 3, 1, 2])
        self._insert(stem, "Cast", [nchw], floats, to=onnx.TensorProto.FLOAT)
        self._insert(stem, "Mul", [floats, "image/step"], unit)
        self._insert(stem, "QuantizeLinear", [unit, "image/scale", "image/zero"], integers, axis=1)
        inputs = [integers, "image/scale", "image/zero_point"]
        self._insert(stem, "DequantizeLinear", inputs, PREPROCESS, axis=1)

    def finish(self) -> None:
        """Put the new nodes into the graph."""
        for node in self._graph.node:
            node.input[:] = [self._rounded.get(name, name) for name in node.input]
        nodes = [
            each
            for node in self._graph.node
            for each in (*self._before.get(node.name, ()), node, *self._after.get(node.name, ()))
        ]
        replace_nodes(self._graph, nodes)

    def _pair(
        self, name: str, prefix: str, grid: TensorQuantization
    ) -> tuple[list[onnx.NodeProto], str]:
        """Two nodes that round a tensor, and the name of what they give."""
        dtype = np.int8 if grid.minimum < 0 else np.uint8
        add_constant(self._graph, f"{prefix}/scale", np.asarray(grid.scale, np.float32))
        add_constant(self._graph, f"{prefix}/zero_point", np.asarray(grid.zero_point, dtype))
        parameters = [f"{prefix}/scale", f"{prefix}/zero_point"]
        integers, dequantized = f"{prefix}/QuantizeLinear", f"{prefix}/DequantizeLinear"
        nodes = [
            helper.make_node("QuantizeLinear", [name, *parameters], [integers], integers),
            helper.make_node(
                "DequantizeLinear", [integers, *parameters], [dequantized], dequantized
            ),
        ]
        return nodes, dequantized

    def _insert(
        self,
        before: onnx.NodeProto,
        operation: str,
        inputs: list[str],
        output: str,
        **attributes: Any,
    ) -> None:
        node = helper.make_node(operation, inputs, [output], name=output, **attributes)
        self._before.setdefault(before.name, []).append(node)
