"""onnxsim as the simplifier, less the passes that do harm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.errors import EffnetEdgeError, first_line
from effnet_edge.graphs.sessions import import_onnxruntime

if TYPE_CHECKING:
    import onnx

# onnxsim 0.8.1 adds Pad's amounts to the wrong sides of a convolution in graphs whose batch is
# dynamic, and its own check then reports success. The exporter has folded the pads by then.
# Equalization's factors are there for the quantization after them: moved on into the weights, they
# leave the same model in float and another one in INT8.
SKIPPED_PASSES = ("fuse_pad_into_conv", "fuse_preceding_mul_into_conv")


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with constants folded and no-ops removed; names of tensors survive.

    Whether it is still the same model is for the parity gate to say, not for onnxsim's check.

    Raises:
        EffnetEdgeError: onnxsim failed.
    """
    import_onnxruntime()  # which onnxsim imports, too
    import onnxsim

    try:
        simplified, _ = onnxsim.simplify(model, skipped_optimizers=list(SKIPPED_PASSES))
    except Exception as error:
        raise EffnetEdgeError(f"onnxsim failed: {first_line(error)}") from error
    result: onnx.ModelProto = simplified
    return result
