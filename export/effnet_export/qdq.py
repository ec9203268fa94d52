"""Q/DQ pairs and integer weights, written into an exported graph.

A pair stands at the input of every convolution and of the classifier, and nowhere else:
there the backends fuse the activation and the requantization before it into the producing
convolution. Weights are int8 with a scale an output channel and zero point 0.

These are also TensorRT's rules (NVIDIA TensorRT documentation, "Working with Quantized Types",
"Q/DQ Layer-Placement Recommendations"): quantize all inputs of weighted operations; leave their
outputs alone; quantize both inputs of a residual addition or, as here, neither. SiLU and the gate
stay between the DequantizeLinear of one convolution and the QuantizeLinear of the next. TensorRT
takes activations with one scale a tensor and zero point 0 only, which is the symmetric scheme.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from effnet_calibration.quantized import QuantizedWeight

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from effnet_calibration.quantized import QuantizedNetwork
    from effnet_calibration.schemes import TensorQuantization
    from effnet_edge.image import Preprocessing
    from effnet_edge.model.network import EfficientNet

STEM = "stem.conv"
PREPROCESS = "preprocess"
PIXEL_STEP = 1 / 255


def quantize_graph(
    model: onnx.ModelProto, quantized: QuantizedNetwork, preprocessing: Preprocessing
) -> onnx.ModelProto:
    """The Q/DQ form of the graph that `quantized.network` was exported to.

    Nodes are found by the names that the export gave them, those of the modules. Where the graph
    takes uint8 pixels and the zero point may move, the stem reads them as they are. A symmetric
    scheme leaves the stem as it was: no grid with zero point 0 holds the pixels and the padding,
    and rounding them takes the KL divergence of B0 from 0.0070 to 0.0078 nats.
    """
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    writer = _Writer(graph)
    weights = dict(quantized.weights)
    takes_pixels = graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    if STEM in weights and takes_pixels:
        stem = PixelStem.of(quantized, preprocessing)
        writer.pixels_to_stem(stem)
        weights[STEM] = stem.weight
    for node in list(graph.node):
        if node.name in weights:
            writer.quantize_weight(node, weights[node.name])
        if node.name in quantized.inputs:
            writer.quantize_input(node, quantized.inputs[node.name])
    return writer.finish(model)


def without_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its activations left unquantized, and its weights rounded as they are.

    A rounding to INT8 turns the least change before it into a whole step or into none: two graphs
    with such roundings differ by noise, and what else is wrong with one of them hides in it.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
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


@dataclass(frozen=True)
class PixelStem:
    """A stem that reads uint8 pixels, so that it runs in INT8 and its input loses nothing.

    W·(p/255 − m)/s = (W/s)·((p − z)/255) + (W/s)·(z − 255m)/255 with z = round(255m): the
    integers p with scale 1/255 and zero point z take the place of the normalization.
    Zero padding then stands for the pixel value z where the exact one is 255m: border pixels
    are off by at most half a pixel step, all others exact.

    Attributes:
        weight: W/s, rounded.
        bias: what is to be added to the stem's, float64 (channels,).
        zero_point: z, float64 (3,).
    """

    weight: QuantizedWeight
    bias: NDArray[np.float64]
    zero_point: NDArray[np.float64]

    @classmethod
    def of(cls, quantized: QuantizedNetwork, preprocessing: Preprocessing) -> PixelStem:
        """That of a quantized network."""
        mean = 255 * np.asarray(preprocessing.mean)
        zero_point = np.round(mean)
        std = np.reshape(preprocessing.std, (1, -1, 1, 1))
        kernel = quantized.network.stem.conv.weight.detach().double().numpy() / std
        weight = QuantizedWeight.of(torch.from_numpy(kernel).float(), quantized.scheme.weight_limit)
        return cls(weight, kernel.sum((2, 3)) @ ((zero_point - mean) / 255), zero_point)

    def simulate_in(self, network: EfficientNet, preprocessing: Preprocessing) -> EfficientNet:
        """Make the stem of a simulation, which reads normalized pixels, compute the same."""
        mean, std = (
            torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)
            for values in (preprocessing.mean, preprocessing.std)
        )
        zero = torch.from_numpy(self.zero_point).view(1, -1, 1, 1)
        moved = ((zero / 255 - mean) / std).float()
        stem = network.stem.conv
        stem.weight.data.copy_(self.weight.dequantized() * std.float())
        cast("torch.Tensor", stem.bias).data += torch.from_numpy(self.bias).float()
        stem.register_forward_pre_hook(lambda _, inputs: (inputs[0] - moved,))
        return network


class _Writer:
    """A graph under change. New nodes go before the node that reads them."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._before: dict[str, list[onnx.NodeProto]] = {}
        self._pairs: dict[tuple[str, TensorQuantization], str] = {}

    def quantize_weight(self, node: onnx.NodeProto, weight: QuantizedWeight) -> None:
        """Replace the weight initializer by integers and a DequantizeLinear."""
        name = node.input[1]
        zeros = np.zeros(len(weight.scales), np.int8)
        self._replace_initializer(name, weight.integers.numpy())
        self._constant(f"{name}/scale", weight.scales.numpy())
        self._constant(f"{name}/zero_point", zeros)
        inputs = [name, f"{name}/scale", f"{name}/zero_point"]
        self._insert(node, "DequantizeLinear", inputs, f"{name}/DequantizeLinear", axis=0)
        node.input[1] = f"{name}/DequantizeLinear"

    def quantize_input(self, node: onnx.NodeProto, grid: TensorQuantization) -> None:
        """Put a pair before the node; readers of one tensor on one grid share it."""
        name = node.input[0]
        if (name, grid) not in self._pairs:
            self._pairs[name, grid] = self._pair(node, name, grid)
        node.input[0] = self._pairs[name, grid]

    def pixels_to_stem(self, stem: PixelStem) -> None:
        """Let the stem read uint8 pixels; its weight is still to be replaced."""
        bias = next(each for each in self._graph.initializer if each.name == f"{STEM}.bias")
        restored = numpy_helper.to_array(bias) + stem.bias
        bias.CopyFrom(numpy_helper.from_array(restored.astype(np.float32), bias.name))
        self._replace_normalization(stem.zero_point)

    def _replace_normalization(self, zero_point: NDArray[np.float64]) -> None:
        """A pair that leaves every pixel as it is, in place of the preprocessing module.

        A DequantizeLinear alone would say the same, but behind a Transpose OpenVINO recognizes
        only a whole pair as the input of an INT8 convolution, and drops one whose scale is 1.
        """
        graph = self._graph
        for node in [each for each in graph.node if each.name.startswith(PREPROCESS)]:
            graph.node.remove(node)
        stem = next(node for node in graph.node if node.name == STEM)
        self._constant("image/step", np.asarray(PIXEL_STEP, np.float32))
        self._constant("image/scale", np.full(len(zero_point), PIXEL_STEP, np.float32))
        self._constant("image/zero", np.zeros(len(zero_point), np.uint8))
        self._constant("image/zero_point", zero_point.astype(np.uint8))
        nchw, floats, unit, integers = (
            f"{PREPROCESS}/{step}" for step in ("Transpose", "Cast", "Mul", "QuantizeLinear")
        )
        self._insert(stem, "Transpose", [graph.input[0].name], nchw, perm=[0, 3, 1, 2])
        self._insert(stem, "Cast", [nchw], floats, to=onnx.TensorProto.FLOAT)
        self._insert(stem, "Mul", [floats, "image/step"], unit)
        self._insert(stem, "QuantizeLinear", [unit, "image/scale", "image/zero"], integers, axis=1)
        inputs = [integers, "image/scale", "image/zero_point"]
        self._insert(stem, "DequantizeLinear", inputs, PREPROCESS, axis=1)

    def finish(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The changed model, checked."""
        nodes = [each for node in self._graph.node for each in (*self._new(node), node)]
        result = onnx.ModelProto()
        result.CopyFrom(model)
        result.graph.CopyFrom(self._graph)
        del result.graph.node[:]
        result.graph.node.extend(nodes)
        del result.graph.value_info[:]
        onnx.checker.check_model(result)
        return result

    def _new(self, node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
        return self._before.get(node.name, ())

    def _pair(self, node: onnx.NodeProto, name: str, grid: TensorQuantization) -> str:
        prefix = f"{node.name}/input"
        dtype = np.int8 if grid.minimum < 0 else np.uint8
        self._constant(f"{prefix}/scale", np.asarray(grid.scale, np.float32))
        self._constant(f"{prefix}/zero_point", np.asarray(grid.zero_point, dtype))
        parameters = [f"{prefix}/scale", f"{prefix}/zero_point"]
        integers, dequantized = f"{prefix}/QuantizeLinear", f"{prefix}/DequantizeLinear"
        self._insert(node, "QuantizeLinear", [name, *parameters], integers)
        self._insert(node, "DequantizeLinear", [integers, *parameters], dequantized)
        return dequantized

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

    def _constant(self, name: str, value: NDArray[np.generic]) -> None:
        self._graph.initializer.append(numpy_helper.from_array(value, name))

    def _replace_initializer(self, name: str, value: NDArray[np.generic]) -> None:
        old = next(each for each in self._graph.initializer if each.name == name)
        old.CopyFrom(numpy_helper.from_array(value, name))
