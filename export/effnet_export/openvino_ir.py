"""ONNX → OpenVINO IR."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

from effnet_edge.errors import BackendError
from effnet_edge.runtime.openvino_core import import_openvino, openvino_core
from effnet_edge.runtime.openvino_engines import SMALLEST_DYNAMIC_INT8_BATCH
from effnet_edge.targets import TARGETS
from effnet_export.openvino_kernels import ask_for_kernels, faster_kernels
from effnet_export.openvino_weights import halve_float_weights

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    import openvino

    from effnet_edge.bundle import BatchRange

MODEL_FILE = "model.xml"
_NUMBERED = re.compile(r"[A-Za-z]\w*_\d+")


def write_openvino_ir(
    model: onnx.ModelProto, folder: Path, *, batch: BatchRange, fp16_weights: bool
) -> str:
    """Convert and write `model.xml` and `model.bin`; the names of what is not fused away survive.

    OpenVINO's common transformations are applied here and not at every load on the device: two
    thirds of the operations of an INT8 graph go, and the model loads in two thirds of the time.

    Args:
        fp16_weights: store the weights in FP16; what a device computes in is its own choice.

    Returns:
        The name of the file that the engine loads.

    Raises:
        BackendError: OpenVINO is not installed, or cannot convert the model.
        OSError: the disk is full or cannot be written.
    """
    try:
        openvino = import_openvino()
    except ImportError as error:
        raise BackendError(
            f"OpenVINO is not installed: {TARGETS['openvino'].install_hint}"
        ) from error
    try:
        converted = openvino_core().read_model(model.SerializeToString())
        if batch.minimum != batch.maximum:
            shape = converted.input(0).partial_shape
            shape[0] = openvino.Dimension(_smallest_batch(converted, batch), batch.maximum)
            converted.reshape(shape)
        _apply_common_transformations(converted)
        _name_by_place(converted, model)  # First: halved weights are named after what they were.
        if fp16_weights and _is_quantized(converted):
            halve_float_weights(converted)
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise BackendError(f"OpenVINO cannot convert the model: {lines[-1]}") from error
    written = folder / MODEL_FILE
    _save(converted, written, fp16_weights, model.ByteSize())
    if kernels := faster_kernels(converted):
        ask_for_kernels(written, kernels)
    return MODEL_FILE


def _smallest_batch(model: openvino.Model, batch: BatchRange) -> int:
    """What the IR itself takes, so that OpenVINO refuses what it would answer wrongly.

    `EngineRunner` runs single images with a static batch; see `runtime.openvino_engines`.
    """
    smallest = SMALLEST_DYNAMIC_INT8_BATCH if _is_quantized(model) else 1
    return max(batch.minimum, smallest)


def _is_quantized(model: openvino.Model) -> bool:
    return any(node.get_type_name() == "FakeQuantize" for node in model.get_ops())


def _apply_common_transformations(model: openvino.Model) -> None:
    # Not openvino.convert_model, which does the same and reports every conversion to its makers.
    from openvino._offline_transformations import apply_moc_transformations

    apply_moc_transformations(model, cf=False)


def _name_by_place(converted: openvino.Model, model: onnx.ModelProto) -> None:
    """OpenVINO numbers what has no name by all that this process made before."""
    graph = model.graph
    given = {each.name for each in (*graph.node, *graph.initializer, *graph.input, *graph.output)}
    given |= {output for node in graph.node for output in node.output}
    for place, node in enumerate(converted.get_ordered_ops()):
        name = node.get_friendly_name()
        if name not in given and _NUMBERED.fullmatch(name):
            node.set_friendly_name(f"unnamed_{place}")


def _save(converted: openvino.Model, path: Path, fp16_weights: bool, size: int) -> None:
    try:
        import_openvino().save_model(converted, path, compress_to_fp16=fp16_weights)
    except RuntimeError as error:
        # OpenVINO tells neither the path nor the reason: "basic_ios::clear: iostream error".
        raise _write_error(path, size) from error


def _write_error(path: Path, size: int) -> OSError:
    """The system's own reason why `size` bytes cannot be written to `path`."""
    try:
        with path.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        return OSError(error.errno, os.strerror(error.errno or errno.EIO), str(path))
    return OSError(errno.EIO, os.strerror(errno.EIO), str(path))
