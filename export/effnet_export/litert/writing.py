"""An ONNX graph as a LiteRT file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_export.litert.conversion import Conversion
from effnet_export.litert.operators import convert_node

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

MODEL_FILE = "model.tflite"


def write_litert(model: onnx.ModelProto, folder: Path, *, fp16_weights: bool) -> str:
    """Convert and write `model.tflite`; tensors keep their names, images are (N, H, W, C).

    Args:
        fp16_weights: store the weights in FP16; LiteRT's processors compute in FP32 all the same.

    Returns:
        The name of the file.

    Raises:
        BackendError: `ai-edge-litert`, which has the schema, is not installed; or an operator
            cannot be converted.
        OSError: the disk is full or cannot be written.
    """
    (folder / MODEL_FILE).write_bytes(litert_file(model, fp16_weights=fp16_weights))
    return MODEL_FILE


def litert_file(model: onnx.ModelProto, *, fp16_weights: bool = False) -> bytes:
    """The content of the file; see `write_litert`."""
    conversion = Conversion(model.graph, fp16_weights=fp16_weights)
    inputs = [conversion.add_input(value) for value in model.graph.input]
    for node in model.graph.node:
        if node.op_type != "Constant":
            convert_node(conversion, node)
    outputs = [conversion.result(value.name) for value in model.graph.output]
    return conversion.graph.packed(inputs, outputs)
