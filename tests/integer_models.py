"""A small network with Q/DQ pairs behind every output, as engines want it that round them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_bundles import CLASSES, SIDE

if TYPE_CHECKING:
    import numpy.typing as npt

SIGMOID_GRID = (1 / 256, -128)


def model_of_integers(
    batch: int | str = 1, *, equalized: bool = False, hard: bool = False, rounds: bool = True
) -> onnx.ModelProto:
    """Pixels → convolution → SiLU, all in integers, → mean → dense → logits in floating point.

    `equalized`: the sigmoid reads a product with a factor a channel. `hard`: a hard-swish is there
    instead, and the dense layer's weights are integers. Without `rounds` it is the same model in
    floating point.
    """
    random = np.random.default_rng(0)
    constants: dict[str, npt.NDArray[Any]] = {
        "scale": np.float32(1 / 255),
        "kernel": random.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8),
        "kernel/scale": random.uniform(0.001, 0.01, 8).astype(np.float32),
        "kernel/zero": np.zeros(8, np.int8),
        "dense": random.normal(size=(8, CLASSES)).astype(np.float32),
        "bias": random.normal(size=CLASSES).astype(np.float32),
        "dense/scale": np.full(CLASSES, 0.01, np.float32),
        "dense/zero": np.zeros(CLASSES, np.int8),
        "three": np.float32(3),
        "none": np.float32(0),
        "six": np.float32(6),
        "axes": np.int64([2, 3]),
        "factors": np.float32([127, 64, 32, 96, 127, 100, 80, 48]).reshape(1, 8, 1, 1) / 32,
    }
    if hard:
        constants["dense"] = random.integers(-127, 128, (CLASSES, 8)).astype(np.int8)
    kernel = ["kernel", "kernel/scale", "kernel/zero"]
    dense = ["dense", "dense/scale", "dense/zero"]
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["values"]),
        helper.make_node("DequantizeLinear", kernel, ["kernel/DQ"], axis=0),
    ]

    def rounded(name: str, scale: float, zero: int) -> str:
        if not rounds:
            return name
        constants[f"{name}/scale"], constants[f"{name}/zero"] = np.float32(scale), np.int8(zero)
        grid = [f"{name}/scale", f"{name}/zero"]
        nodes.append(helper.make_node("QuantizeLinear", [name, *grid], [f"{name}/Q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}/Q", *grid], [f"{name}/DQ"]))
        return f"{name}/DQ"

    def made(kind: str, inputs: list[str], output: str, scale: float, zero: int) -> str:
        nodes.append(helper.make_node(kind, inputs, [output]))
        return rounded(output, scale, zero)

    pixels = rounded("values", 1 / 255, -128)
    conv = made("Conv", [pixels, "kernel/DQ"], "conv", 0.03, -60)
    if hard:
        nodes.append(helper.make_node("Add", [conv, "three"], ["shifted"]))
        gate = made("Clip", ["shifted", "none", "six"], "gate", 6 / 255, -128)
        silu = made("Mul", [conv, gate], "silu", 0.15, -113)
        nodes.append(helper.make_node("DequantizeLinear", dense, ["dense/DQ"], axis=0))
    else:
        real = made("Mul", [conv, "factors"], "real", 1 / 16, 0) if equalized else conv
        gate = made("Sigmoid", [real], "gate", *SIGMOID_GRID)
        silu = made("Mul", [conv, gate], "silu", 0.022, -115)
    nodes.append(helper.make_node("ReduceMean", [silu, "axes"], ["mean"], keepdims=0))
    weight = "dense/DQ" if hard else "dense"
    nodes.append(
        helper.make_node("Gemm", ["mean", weight, "bias"], ["logits"], transB=1 if hard else 0)
    )
    graph = helper.make_graph(
        nodes,
        "integers",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [batch, SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
        [
            numpy_helper.from_array(each, name)
            for name, each in constants.items()
            if any(name in node.input for node in nodes)
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model
