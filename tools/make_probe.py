"""Write effnet_edge/data/probe.*, the models that `effnet-edge doctor` tries backends with."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from effnet_export.litert.writing import litert_file

DATA = Path(__file__).parents[1] / "effnet_edge" / "data"


def probe_model() -> onnx.ModelProto:
    """Uint8 pixels (1, 2, 2, 3) → 1×1 convolution of two channels → means → logits (1, 2).

    Not the means times a matrix: TensorRT-RTX has no matrix product in FP32 for compute capability
    7.5, where it runs FP16 and INT8.
    """
    weights = np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]], np.float32).reshape(2, 3, 1, 1)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["values"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels", "weights"], ["sums"]),
        helper.make_node("ReduceMean", ["sums"], ["logits"], axes=[2, 3], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, 2, 2, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    model = probe_model()
    contents = {
        "probe.onnx": model.SerializeToString(deterministic=True),
        "probe.tflite": litert_file(model),
    }
    for name, content in contents.items():
        (DATA / name).write_bytes(content)
        sys.stdout.write(f"{DATA / name}: {len(content)} bytes\n")
