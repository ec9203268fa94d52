"""FP16 written into an ONNX graph, where measurement says that it is safe.

TensorRT builds strongly typed networks: each layer computes in the type of its inputs, and the
builder chooses none (NVIDIA TensorRT documentation, "Strongly Typed Networks"). So the types are
in the graph: FP16 weights and activations, Cast nodes at the borders, FP32 where FP16 would
overflow or lose more than its share.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import onnx
from google.protobuf.message import Message as AnyMessage
from onnx import TensorProto, helper, numpy_helper, version_converter

from effnet_edge.errors import EffnetEdgeError
from effnet_edge.image import normalize
from effnet_edge.parity.onnx_rounding import with_rounding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from effnet_calibration.image_sets import Pictures
    from effnet_edge.image import Preprocessing

Message = TypeVar("Message", bound=AnyMessage)

# QuantizeLinear and DequantizeLinear take FP16 from opset 19 on; TensorRT 10.0 parses up to 20.
OPSET = 19

FP16_MAX = float(np.finfo(np.float16).max)

# Pictures that were not measured reach further than those that were.
HEADROOM = 4.0
LARGEST = FP16_MAX / HEADROOM

# A part of the network whose FP16 error in the logits has more than this many times the mean
# power of all parts' errors stays in FP32.
SHARES = 2.0

# How many pictures the errors are measured on; the ranges are measured on all.
ERROR_PICTURES = 8

QUANTIZATION_OPERATIONS = frozenset({"QuantizeLinear", "DequantizeLinear"})

# Inputs by operation that are no tensors of the network's arithmetic: integers, axes, shapes.
_UNTYPED_INPUTS = {
    "QuantizeLinear": {2},
    "DequantizeLinear": {0, 2},
    "ReduceMean": {1},
    "Reshape": {1},
    "Pad": {1, 3},
}
_PART = re.compile(r"stages\.\d+|[^./]+")


@dataclass(frozen=True)
class Typing:
    """Which nodes stay in FP32, and why.

    Attributes:
        model: typed: FP16 but for these nodes, inputs and outputs as they were.
        overflowing: names of nodes that read or give what FP16 cannot hold.
        lossy: parts of the network whose error was above its share.
        largest: the largest magnitude measured of any tensor that is in FP16.
    """

    model: onnx.ModelProto
    overflowing: tuple[str, ...]
    lossy: tuple[str, ...]
    largest: float


def type_fp16(model: onnx.ModelProto, pictures: Pictures, preprocessing: Preprocessing) -> Typing:
    """Type a float32 graph, with or without Q/DQ pairs, by what it does on pictures.

    Args:
        model: takes uint8 pixels (N, R, R, 3) or normalized float32 (N, 3, R, R).
        pictures: all of them are run once for the ranges, the first eight for the errors.

    Raises:
        EffnetEdgeError: a tensor is NaN or infinite in FP32 already.
    """
    model = _at_opset(model)
    feeds = list(_feeds(model, pictures, preprocessing))
    ranges = measure_ranges(model, feeds)
    overflowing = _overflowing(model, ranges)
    lossy = _lossy_parts(model, feeds[:ERROR_PICTURES], overflowing)
    kept = overflowing | {node.name for node in model.graph.node if part(node.name) in lossy}
    typed = write_types(model, kept)
    in_fp16 = _fp16_tensors(typed)
    return Typing(
        typed,
        tuple(node.name for node in model.graph.node if node.name in overflowing),
        tuple(lossy),
        max((ranges[name] for name in in_fp16 if name in ranges), default=0.0),
    )


def part(node_name: str) -> str:
    """The part of the network that a node belongs to: "preprocess", "stem", "stages.3", …."""
    match = _PART.match(node_name)
    return match.group() if match else node_name


def measure_ranges(
    model: onnx.ModelProto, feeds: Iterable[NDArray[np.generic]]
) -> dict[str, float]:
    """The largest magnitude of each float32 tensor, over all feeds of the model's input.

    Raises:
        EffnetEdgeError: a tensor is NaN or infinite.
    """
    names = [name for name, kind in _element_types(model).items() if kind == TensorProto.FLOAT]
    made = {name for node in model.graph.node for name in node.output}
    names = [name for name in names if name in made]
    measuring = copied(model)
    graph = measuring.graph
    del graph.output[:]
    for name in names:
        graph.node.append(helper.make_node("Abs", [name], [f"{name}/abs"]))
        graph.node.append(
            helper.make_node("ReduceMax", [f"{name}/abs"], [f"{name}/largest"], keepdims=0)
        )
        graph.output.append(helper.make_tensor_value_info(f"{name}/largest", TensorProto.FLOAT, []))
    largest = np.zeros(len(names))
    for values in _run(measuring, feeds):
        largest = np.maximum(largest, [float(value) for value in values])
    wrong = [name for name, value in zip(names, largest, strict=True) if not np.isfinite(value)]
    if wrong:
        raise EffnetEdgeError(f"{wrong[0]} is not finite in FP32: these weights are damaged")
    return dict(zip(names, largest.tolist(), strict=True))


def write_types(model: onnx.ModelProto, kept: Collection[str]) -> onnx.ModelProto:
    """The graph in FP16, but for the nodes called `kept`; inputs and outputs keep their types."""
    typed = copied(model)
    _TypeWriter(typed, kept).write()
    del typed.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(typed, check_type=True, strict_mode=True)
    onnx.checker.check_model(inferred)
    return inferred


class _TypeWriter:
    """A float32 graph being typed."""

    def __init__(self, model: onnx.ModelProto, kept: Collection[str]) -> None:
        self._graph = model.graph
        self._kept = set(kept)
        self._types = _element_types(model)
        self._initializers = {each.name: each for each in model.graph.initializer}
        self._scales = {
            node.input[1] for node in model.graph.node if node.op_type in QUANTIZATION_OPERATIONS
        }
        self._made: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._output_casts: list[onnx.NodeProto] = []

    def write(self) -> None:
        graph = self._graph
        outputs = {value.name: value.type.tensor_type.elem_type for value in graph.output}
        now = dict(self._types)
        for node in graph.node:
            wanted = TensorProto.FLOAT if node.name in self._kept else TensorProto.FLOAT16
            skipped = _UNTYPED_INPUTS.get(node.op_type, ())
            for index, name in enumerate(node.input):
                if index not in skipped and self._types.get(name) == TensorProto.FLOAT:
                    node.input[index] = self._as(name, wanted, now)
            if node.op_type == "Cast" and self._types[node.output[0]] == TensorProto.FLOAT:
                _set_cast(node, wanted)
            for position, name in enumerate(node.output):
                if self._types.get(name) != TensorProto.FLOAT:
                    continue
                now[name] = wanted
                if name in outputs and wanted != outputs[name]:
                    self._restore_output(node, position, outputs[name], now)
            self._nodes.append(node)
            self._nodes.extend(self._output_casts)
            self._output_casts.clear()
        nodes = [copied(node) for node in self._nodes]
        del graph.node[:]
        graph.node.extend(nodes)
        self._drop_unread()

    def _as(self, name: str, wanted: int, now: dict[str, int]) -> str:
        """The tensor in the wanted type: itself, a converted initializer, or behind a Cast."""
        if now.get(name) == wanted:
            return name
        if (name, wanted) not in self._made:
            self._made[name, wanted] = self._convert(name, wanted)
        return self._made[name, wanted]

    def _convert(self, name: str, wanted: int) -> str:
        suffix = "fp16" if wanted == TensorProto.FLOAT16 else "fp32"
        new = f"{name}/{suffix}"
        if name in self._initializers:
            dtype = helper.tensor_dtype_to_np_dtype(wanted)
            value = numpy_helper.to_array(self._initializers[name]).astype(dtype)
            if name in self._scales:  # the scale of a nearly dead channel must not become 0
                value = np.maximum(value, np.finfo(dtype).smallest_subnormal)
            self._graph.initializer.append(numpy_helper.from_array(value, new))
        else:
            self._nodes.append(helper.make_node("Cast", [name], [new], name=new, to=wanted))
        return new

    def _restore_output(
        self, node: onnx.NodeProto, position: int, outside: int, now: dict[str, int]
    ) -> None:
        """Give an output of the graph its own type back."""
        name = node.output[position]
        inner = f"{name}/fp16"
        node.output[position] = inner
        now[inner], now[name] = TensorProto.FLOAT16, outside
        self._made[name, TensorProto.FLOAT16] = inner
        self._output_casts.append(
            helper.make_node("Cast", [inner], [name], name=f"{name}/Cast", to=outside)
        )

    def _drop_unread(self) -> None:
        read = {name for node in self._graph.node for name in node.input}
        kept = [each for each in self._graph.initializer if each.name in read]
        kept = [copied(each) for each in kept]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)


def copied(message: Message) -> Message:
    """A deep copy of a protobuf message, which a list that is cleared cannot take away."""
    duplicate: Message = type(message)()
    duplicate.CopyFrom(message)
    return duplicate


def _set_cast(node: onnx.NodeProto, wanted: int) -> None:
    for attribute in node.attribute:
        if attribute.name == "to":
            attribute.i = wanted


def _at_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    version = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    return model if version >= OPSET else version_converter.convert_version(model, OPSET)


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.output, *graph.input)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {each.name: each.data_type for each in graph.initializer}


def _fp16_tensors(model: onnx.ModelProto) -> set[str]:
    return {name for name, kind in _element_types(model).items() if kind == TensorProto.FLOAT16}


def _overflowing(model: onnx.ModelProto, ranges: dict[str, float]) -> set[str]:
    """Nodes that read or give a tensor, or hold a weight, too large for FP16."""
    constants = {
        each.name: float(np.abs(numpy_helper.to_array(each)).max(initial=0))
        for each in model.graph.initializer
        if each.data_type == TensorProto.FLOAT
    }
    too_large = {name for name, value in ranges.items() if value > LARGEST}
    too_large |= {name for name, value in constants.items() if value > FP16_MAX}
    return {
        node.name
        for node in model.graph.node
        if not too_large.isdisjoint((*node.input, *node.output))
    }


def _lossy_parts(
    model: onnx.ModelProto, feeds: Sequence[NDArray[np.generic]], overflowing: set[str]
) -> list[str]:
    """Parts whose own FP16 rounding, all else in FP32, shows in the logits above its share."""
    exact = _logits(model, feeds)
    nodes = [node.name for node in model.graph.node]
    errors = {}
    for name in dict.fromkeys(map(part, nodes)):
        others = {node for node in nodes if part(node) != name}
        alone = with_rounding(write_types(model, others | overflowing))
        errors[name] = float(np.square(_logits(alone, feeds) - exact).sum())
    limit = SHARES * sum(errors.values()) / len(errors)
    return [name for name, error in errors.items() if not error <= limit]


def _logits(model: onnx.ModelProto, feeds: Sequence[NDArray[np.generic]]) -> NDArray[np.float64]:
    return np.concatenate([outputs[0] for outputs in _run(model, feeds)]).astype(np.float64)


def _run(
    model: onnx.ModelProto, feeds: Iterable[NDArray[np.generic]]
) -> Iterable[list[NDArray[np.generic]]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    for feed in feeds:
        yield session.run(None, {name: feed})


def _feeds(
    model: onnx.ModelProto, pictures: Pictures, preprocessing: Preprocessing
) -> Iterable[NDArray[np.generic]]:
    """The model's input, a batch it takes at a time."""
    kind = model.graph.input[0].type.tensor_type
    batch = kind.shape.dim[0].dim_value or 1
    for pixels, _ in pictures.batches(preprocessing, batch):
        missing = batch - len(pixels)
        filled = np.concatenate([pixels, pixels[-1:].repeat(missing, 0)]) if missing else pixels
        yield filled if kind.elem_type == TensorProto.UINT8 else normalize(filled, preprocessing)
