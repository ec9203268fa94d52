"""Which INT8 layouts of one layer an engine computes in INT8, and as what it computes the others.

    python benchmarks/int8_layouts.py make FOLDER    # needs onnx
    python benchmarks/int8_layouts.py run FOLDER     # on the device; needs onnxruntime and openvino

Each graph is one layer between a ReLU and a global maximum, with quantized input and weights and
with what its name tells: the kind of layer, the type of its input, a scale a tensor or a channel of
the weights, and what is behind it (FP32, a Q/DQ pair, or an activation and such a pair). Told is
what the layer runs in: OpenVINO's kernel with its type, and ONNX Runtime's operator with the types
of its inputs.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np

_CHANNELS = 16
_SIZE = 16
_LAYER = "layer"


def make(folder: Path) -> None:
    """Write a graph for each layout."""
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    kinds, types = ("pointwise", "depthwise", "matmul"), ("uint8", "int8")
    for kind, activation, weights, behind in product(
        kinds, types, ("tensor", "channel"), ("fp32", "quantized", "relu", "silu")
    ):
        model = _graph(kind, activation, weights == "channel", behind)
        onnx.checker.check_model(model)
        onnx.save(model, folder / f"{kind}-{activation}-{weights}-{behind}.onnx")
    onnx.save(_graph("pointwise", "uint8", True, "quantized", zero=7), folder / "zero-point.onnx")


def _graph(kind: str, activation: str, per_channel: bool, behind: str, zero: int = 0):  # type: ignore[no-untyped-def]
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], {}
    dense = kind == "matmul"
    groups = _CHANNELS if kind == "depthwise" else 1
    shape = [1, _CHANNELS] if dense else [1, _CHANNELS, _SIZE, _SIZE]

    def constant(name: str, value: object) -> str:
        constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def node(operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def pair(value: str, name: str) -> str:
        scale = constant(f"{name}.scale", np.float32(0.02))
        point = constant(f"{name}.zero", np.dtype(activation).type(zero))
        codes = node("QuantizeLinear", [value, scale, point], f"{name}.codes")
        return node("DequantizeLinear", [codes, scale, point], f"{name}.values")

    random = np.random.default_rng(0)
    kernel = {"pointwise": (1, 1), "depthwise": (3, 3), "matmul": ()}[kind]
    codes = random.integers(-127, 128, (_CHANNELS, _CHANNELS // groups, *kernel)).astype(np.int8)
    scales = np.full(_CHANNELS, 0.01, np.float32) if per_channel else np.float32(0.01)
    axis = {"axis": 0} if per_channel else {}
    zeros = np.zeros_like(scales, np.int8)
    stored = [constant("w", codes), constant("w.scale", scales), constant("w.zero", zeros)]
    weights = node("DequantizeLinear", stored, "w.values", **axis)
    bias = constant("bias", random.standard_normal(_CHANNELS).astype(np.float32))
    quantized = pair(node("Relu", ["x"], "first"), "in")
    if dense:
        value = node("Gemm", [quantized, weights, bias], _LAYER, transB=1)
    else:
        pads = [kernel[0] // 2] * 4
        value = node("Conv", [quantized, weights, bias], _LAYER, group=groups, pads=pads)
    if behind == "relu":
        value = node("Relu", [value], "activation")
    if behind == "silu":
        value = node("Mul", [value, node("Sigmoid", [value], "gate")], "activation")
    if behind != "fp32":
        value = pair(value, "out")
    node("Identity" if dense else "GlobalMaxPool", [value], "y")
    graph = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(
                "y", TensorProto.FLOAT, shape[:2] + [1, 1][: len(shape) - 2]
            )
        ],
        list(constants.values()),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(folder: Path) -> None:
    """Print a row for each graph there: what both engines compute its layer in."""
    for path in sorted(folder.glob("*.onnx")):
        sys.stdout.write(f"{path.stem:40} {_in_openvino(path):24} {_in_onnxruntime(path)}\n")
        sys.stdout.flush()


def _in_openvino(path: Path) -> str:
    import openvino

    core = openvino.Core()
    try:
        compiled = core.compile_model(core.read_model(path), "CPU")
    except RuntimeError as error:
        return f"does not load: {str(error).split()[-1]}"
    layers = ("Convolution", "GroupConvolution", "FullyConnected", "MatMul")
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    told = [
        info["primitiveType"].astype(str)
        for info in infos
        if info["layerType"].astype(str) in layers
    ]
    return ", ".join(told)


def _in_onnxruntime(path: Path) -> str:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        session.run(None, {"x": np.ones(session.get_inputs()[0].shape, np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [event["args"] for event in events if event.get("cat") == "Node"]
    told = [
        f"{node['op_name']} ({', '.join(next(iter(each)) for each in node['input_type_shape'])})"
        for node in nodes
        if any(word in node.get("op_name", "") for word in ("Conv", "Gemm", "MatMul"))
    ]
    return "; ".join(dict.fromkeys(told))


if __name__ == "__main__":
    {"make": make, "run": run}[sys.argv[1]](Path(sys.argv[2]))
