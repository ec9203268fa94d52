"""Faults of ten kinds, planted at random nodes of an exported network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from effnet_edge.graphs.editing import copied
from effnet_edge.graphs.tensors import add_constant, set_value, value

if TYPE_CHECKING:
    from collections.abc import Callable

Random = np.random.Generator


@dataclass
class Planted:
    """The broken model, the tensor whose node is at fault, and the kinds that describe it."""

    model: onnx.ModelProto
    node: str
    kinds: set[str]


def node_named(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if name in node.output)


def convolutions(model: onnx.ModelProto, kernel: int = 1) -> list[str]:
    """The outputs of the convolutions with at least this kernel."""
    return [
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Conv"
        and next(each.ints[0] for each in node.attribute if each.name == "kernel_shape") >= kernel
    ]


def insert_before(model: onnx.ModelProto, before: onnx.NodeProto, *new: onnx.NodeProto) -> None:
    at = list(model.graph.node).index(before)
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*rest[:at], *new, *rest[at:]])


def shifted_pads(model: onnx.ModelProto, random: Random) -> Planted:
    broken = copied(model)
    name = random.choice(convolutions(model, kernel=3))
    pads = next(each for each in node_named(broken, name).attribute if each.name == "pads")
    top, left, bottom, right = pads.ints
    moved = [bottom, right, top, left] if top != bottom else [top - 1, left, bottom + 1, right]
    pads.ints[:] = moved
    return Planted(broken, name, {"padding"})


def changed_weight(change: Callable[[np.ndarray, Random], np.ndarray], kernel: int, kind: str):
    def plant(model: onnx.ModelProto, random: Random) -> Planted:
        broken = copied(model)
        name = random.choice(convolutions(model, kernel))
        weight = node_named(broken, name).input[1]
        set_value(broken.graph, weight, change(value(broken.graph, weight), random))
        return Planted(broken, name, {kind})

    return plant


def two_swapped(weight: np.ndarray, random: Random) -> np.ndarray:
    first, second = random.choice(len(weight), 2, replace=False)
    weight[[first, second]] = weight[[second, first]]
    return weight


def other_epsilon(model: onnx.ModelProto, random: Random) -> Planted:
    """Batch norm folded with 1e-5 where it should have been 1e-3, for variances as trained ones."""
    broken = copied(model)
    name = random.choice(convolutions(model))
    weight, bias = node_named(broken, name).input[1:3]
    variance = np.exp(random.normal(-1, 2, len(value(broken.graph, bias))))
    factor = np.sqrt((variance + 1e-3) / (variance + 1e-5)).astype(np.float32)
    set_value(broken.graph, weight, value(broken.graph, weight) * factor[:, None, None, None])
    set_value(broken.graph, bias, value(broken.graph, bias) * factor)
    return Planted(broken, name, {"scale"})


def bgr(model: onnx.ModelProto, _: Random) -> Planted:
    """The pixels' channels reversed on the way in."""
    broken = copied(model)
    transpose = node_named(broken, "preprocess/Transpose")
    reader = next(n for n in broken.graph.node if "preprocess/Transpose" in n.input)
    add_constant(broken.graph, "bgr", np.array([2, 1, 0]))
    gather = helper.make_node("Gather", [transpose.output[0], "bgr"], ["reversed"], axis=1)
    insert_before(broken, reader, gather)
    reader.input[0] = "reversed"
    next(n for n in broken.graph.node if n.output[0] == reader.output[0]).input[0] = "reversed"
    return Planted(broken, "preprocess", {"channel order"})


def wrong_mean(model: onnx.ModelProto, random: Random) -> Planted:
    broken = copied(model)
    shift = value(broken.graph, "preprocess.shift")
    wrong = (
        shift * 0 - 0.5 / 0.225
        if random.random() < 0.5
        else shift + random.normal(0, 0.2, shift.shape)
    )
    set_value(broken.graph, "preprocess.shift", wrong.astype(np.float32))
    return Planted(broken, "preprocess", {"offset"})


def dropped_silu(model: onnx.ModelProto, random: Random) -> Planted:
    broken = copied(model)
    activations = [
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Mul" and node.output[0].endswith(".act")
    ]
    name = random.choice(activations)
    source = node_named(broken, name).input[0]
    for node in broken.graph.node:
        node.input[:] = [source if each == name else each for each in node.input]
    for dead in (name, f"{name}/Sigmoid"):
        broken.graph.node.remove(node_named(broken, dead))
    return Planted(broken, name, {"missing"})


def clipped_range(model: onnx.ModelProto, random: Random) -> Planted:
    """The output of a convolution cut off where its bias already is near the end."""
    broken = copied(model)
    name = random.choice([c for c in convolutions(model) if ".se." not in c])
    node = node_named(broken, name)
    limit = np.float32(random.uniform(0.5, 1.5) * np.abs(value(broken.graph, node.input[2])).mean())
    for end, number in (("low", -limit), ("high", limit)):
        add_constant(broken.graph, f"clip/{end}", np.asarray(number))
    node.output[0] = f"{name}/unclipped"
    clip = helper.make_node("Clip", [node.output[0], "clip/low", "clip/high"], [name])
    at = list(broken.graph.node).index(node)
    insert_before(broken, broken.graph.node[at + 1], clip)
    return Planted(broken, name, {"saturation"})


def half_precision(model: onnx.ModelProto, random: Random) -> Planted:
    """One convolution computed in FP16 or BF16, its input and output in FP32 as before."""
    broken = copied(model)
    name = random.choice(convolutions(model))
    node = node_named(broken, name)
    kind = [TensorProto.FLOAT16, TensorProto.BFLOAT16][random.integers(2)]
    new = []
    for position in range(2):
        source = node.input[position]
        narrow, wide = f"{name}/narrow{position}", f"{name}/wide{position}"
        new += [
            helper.make_node("Cast", [source], [narrow], to=kind),
            helper.make_node("Cast", [narrow], [wide], to=TensorProto.FLOAT),
        ]
        node.input[position] = wide
    insert_before(broken, node, *new)
    return Planted(broken, name, {"precision"})


def activation_pairs(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    constants = {each.name for each in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants
    ]


def _with_own_parameter(
    model: onnx.ModelProto,
    random: Random,
    position: int,
    change: Callable[[np.ndarray], np.ndarray],
) -> tuple[onnx.ModelProto, str]:
    """Change a pair's scale (1) or zero point (2), in both of its nodes and nowhere else."""
    broken = copied(model)
    pairs = activation_pairs(broken)
    node = pairs[random.integers(len(pairs))]
    old, new = node.input[position], f"{node.output[0]}/wrong"
    add_constant(broken.graph, new, change(value(broken.graph, old)))
    readers = [each for each in broken.graph.node if node.output[0] in each.input]
    for each in (node, *readers):
        each.input[position] = new
    return broken, node.output[0]


def shifted_zero_point(model: onnx.ModelProto, random: Random) -> Planted:
    shift = int(random.integers(1, 40))

    def moved(zero: np.ndarray) -> np.ndarray:
        return np.asarray(zero + shift if zero < 128 else zero - shift, zero.dtype)

    return Planted(*_with_own_parameter(model, random, 2, moved), {"zero point"})


def scale_off_by_two(model: onnx.ModelProto, random: Random) -> Planted:
    factor = np.float32([0.5, 2.0][random.integers(2)])
    return Planted(*_with_own_parameter(model, random, 1, lambda s: s * factor), {"scale"})


FLOAT_FAULTS = {
    "shifted pads": shifted_pads,
    "transposed weight": changed_weight(lambda w, _: w.swapaxes(2, 3), 3, "transposed"),
    "swapped channels": changed_weight(two_swapped, 1, "channel order"),
    "BGR": bgr,
    "wrong mean": wrong_mean,
    "eps 1e-5": other_epsilon,
    "dropped SiLU": dropped_silu,
    "clipped range": clipped_range,
    "half precision": half_precision,
}
INTEGER_FAULTS = {
    "shifted zero point": shifted_zero_point,
    "scale off by two": scale_off_by_two,
}
