"""FP16 written into an ONNX graph, where measurement says that it is safe.

TensorRT builds strongly typed networks: each layer computes in the type of its inputs, and the
builder chooses none (NVIDIA TensorRT documentation, "Strongly Typed Networks"). So the types are
in the graph: FP16 weights and activations, Cast nodes at the borders, FP32 where FP16 would
overflow or lose more than its share.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from effnet_calibration.threads import THREADS
from effnet_edge.errors import EffnetEdgeError
from effnet_edge.graphs.rounding import with_rounding
from effnet_edge.graphs.sessions import Session
from effnet_edge.graphs.types import element_types, without_weights
from effnet_edge.pictures.image import normalize
from effnet_edge.pictures.reading import read_batches
from effnet_export.fp16_graph import scales, write_types
from effnet_export.qdq import without_pairs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Pictures

Weights: TypeAlias = "Mapping[str, NDArray[np.generic]]"

# QuantizeLinear and DequantizeLinear take FP16 from opset 19 on; TensorRT 10.0 parses up to 20.
OPSET = 19

FP16_MAX = float(np.finfo(np.float16).max)

# Pictures that were not measured reach further than those that were.
HEADROOM = 4.0
LARGEST = FP16_MAX / HEADROOM

# A part of the network whose FP16 error in the logits has more than this many times the mean
# power of all parts' errors stays in FP32; the others are then judged by the mean of theirs.
SHARES = 2.0

# But not one whose error's power is no more than this share of the logits' (−50 dB). FP16 alone
# leaves each part of B0 at −55 dB or less, and which is the worst then depends on the pictures.
NEGLIGIBLE = 1e-5

# Nor one where INT8 costs this many times more than FP16 does in that part.
DROWNED = 10.0

# How many pictures the errors are measured on; the ranges are measured on all.
ERROR_PICTURES = 8

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
        model: takes uint8 pixels (N, H, W, 3) or normalized float32 (N, 3, H, W).
        pictures: all of them are run for the ranges, the first eight again for the errors; no more
            than a batch of the others is in memory.

    Raises:
        EffnetEdgeError: a tensor is NaN or infinite in FP32 already.
    """
    model = _at_opset(model)
    ranges = measure_ranges(model, _feeds(model, pictures, preprocessing))
    overflowing = _overflowing(model, ranges)
    few = list(islice(_feeds(model, pictures, preprocessing), -(-ERROR_PICTURES // _batch(model))))
    lossy = _lossy_parts(model, few, overflowing)
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
    measuring, weights = _apart(model)
    names = [name for name, kind in element_types(measuring).items() if kind == TensorProto.FLOAT]
    made = {name for node in model.graph.node for name in node.output}
    names = [name for name in names if name in made]
    graph = measuring.graph
    del graph.output[:]
    for name in names:
        graph.node.append(helper.make_node("Abs", [name], [f"{name}/abs"]))
        graph.node.append(
            helper.make_node("ReduceMax", [f"{name}/abs"], [f"{name}/largest"], keepdims=0)
        )
        graph.output.append(helper.make_tensor_value_info(f"{name}/largest", TensorProto.FLOAT, []))
    largest = np.zeros(len(names))
    for values in _run(measuring, weights, feeds):
        largest = np.maximum(largest, [float(value) for value in values])
    wrong = [name for name, value in zip(names, largest, strict=True) if not np.isfinite(value)]
    if wrong:
        raise EffnetEdgeError(f"{wrong[0]} is not finite in FP32: these weights are damaged")
    return dict(zip(names, largest.tolist(), strict=True))


def _at_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    version = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    return model if version >= OPSET else version_converter.convert_version(model, OPSET)


def _fp16_tensors(model: onnx.ModelProto) -> set[str]:
    return {name for name, kind in element_types(model).items() if kind == TensorProto.FLOAT16}


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
    bare, weights = _apart(model)
    smooth = without_pairs(bare)
    exact = _logits(smooth, weights, feeds)
    nodes = [node.name for node in model.graph.node]
    errors = {}
    for name in dict.fromkeys(map(part, nodes)):
        others = {node for node in nodes if part(node) != name}
        alone = with_rounding(write_types(smooth, others | overflowing))
        errors[name] = float(np.square(_logits(alone, weights, feeds) - exact).sum())
    of_int8 = float(np.square(_logits(bare, weights, feeds) - exact).sum())
    return _above_share(errors, max(NEGLIGIBLE * float(np.square(exact).sum()), of_int8 / DROWNED))


def _above_share(errors: dict[str, float], negligible: float) -> list[str]:
    """The parts above their share of what is left once the worse ones are in FP32."""
    left = {name: error for name, error in errors.items() if np.isfinite(error)}
    while left:
        limit = max(SHARES * sum(left.values()) / len(left), negligible)
        within = {name: error for name, error in left.items() if error <= limit}
        if len(within) == len(left):
            break
        left = within
    return [name for name in errors if name not in left]


def _apart(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Weights]:
    """The graph with its large weights as inputs, and their values.

    What is tried on the graph then shares one copy of them, where each form of it would hold
    several. The scales of Q/DQ pairs stay: they are typed by a rule of their own.
    """
    bare = without_weights(model, kept=scales(model.graph))
    fed = {value.name for value in bare.graph.input}
    weights = {
        each.name: numpy_helper.to_array(each)
        for each in model.graph.initializer
        if each.name in fed
    }
    return bare, weights


def _logits(
    model: onnx.ModelProto, weights: Weights, feeds: Sequence[NDArray[np.generic]]
) -> NDArray[np.float64]:
    outputs = [outputs[0] for outputs in _run(model, weights, feeds)]
    return np.concatenate(outputs).astype(np.float64)


def _run(
    model: onnx.ModelProto, weights: Weights, feeds: Iterable[NDArray[np.generic]]
) -> Iterable[list[NDArray[np.generic]]]:
    session = Session(
        model.SerializeToString(), "the graph to be typed", optimized=False, threads=THREADS
    )
    name = session.inputs[0].name
    read = {each.name for each in session.inputs}
    shared = {each: value for each, value in weights.items() if each in read}
    for feed in feeds:
        yield session.run({**shared, name: feed})


def _batch(model: onnx.ModelProto) -> int:
    """How many pictures the model takes at a time; 1 where it takes any number."""
    return model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1


def _feeds(
    model: onnx.ModelProto, pictures: Pictures, preprocessing: Preprocessing
) -> Iterable[NDArray[np.generic]]:
    """The model's input, a batch it takes at a time."""
    kind = model.graph.input[0].type.tensor_type
    batch = _batch(model)
    for pixels, _ in read_batches(pictures, preprocessing, batch, []):
        missing = batch - len(pixels)
        filled = np.concatenate([pixels, pixels[-1:].repeat(missing, 0)]) if missing else pixels
        yield filled if kind.elem_type == TensorProto.UINT8 else normalize(filled, preprocessing)
