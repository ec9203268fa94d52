"""How each target's model is written: what `effnet_edge.targets` cannot say without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from effnet_calibration.activation_fitting import SHARE
from effnet_calibration.schemes import (
    ASYMMETRIC_INT8_OUTPUTS,
    ASYMMETRIC_UINT8,
    ASYMMETRIC_UINT8_W7,
    SYMMETRIC_INT8_DENSE,
    QuantizationScheme,
)
from effnet_calibration.work import DEFAULT_SETTINGS, Settings
from effnet_edge.bundle import BatchRange
from effnet_edge.machine import int8_overflows, is_x86, setting_without_vnni
from effnet_edge.parity import EXACT_GATES, Gate
from effnet_edge.targets import TARGETS, Target
from effnet_export.gate import HALF_PRECISION, INT8
from effnet_export.litert.writing import write_litert
from effnet_export.openvino_ir import write_openvino_ir
from effnet_export.option_rules import Asked, check_options

if TYPE_CHECKING:
    from effnet_edge.outputs import OutputKind

ONNX_FILE = "model.onnx"

WriteModel = Callable[[onnx.ModelProto, Path, str, BatchRange], str]
"""Called with the graph, the folder for the model's files, the precision and the batch.

Gives the name of the file that the runner loads.
"""


@dataclass(frozen=True)
class Writing:
    """How a target's model is written.

    Attributes:
        write: writes the model's files.
        scheme: of INT8 activations.
        settings: of INT8, where nobody asked for others.
    """

    write: WriteModel
    scheme: QuantizationScheme
    settings: Settings = DEFAULT_SETTINGS


@dataclass(frozen=True)
class ExportTarget:
    """A target and how its model is written.

    Attributes:
        settings: how its INT8 models are calibrated.
    """

    row: Target
    write: WriteModel
    scheme: QuantizationScheme
    settings: Settings

    @property
    def name(self) -> str:
        """What `--target` calls it."""
        return self.row.name

    @property
    def built_on_device(self) -> bool:
        """Whether a typed graph is written, from which the device makes its engine."""
        return self.row.built_on_device

    def precision(self, asked: str | None) -> str:
        """The precision to export in; raises UsageError for one that the target does not have."""
        return self.row.precision(asked)

    def gates(self, precision: str) -> Mapping[OutputKind, Gate]:
        """What the finished engine must hold, by the kind of output."""
        return {"fp32": EXACT_GATES, "fp16": HALF_PRECISION, "int8": INT8}[precision]


def _write_ir(model: onnx.ModelProto, folder: Path, precision: str, batch: BatchRange) -> str:
    return write_openvino_ir(model, folder, batch=batch, fp16_weights=precision != "fp32")


def _write_tflite(model: onnx.ModelProto, folder: Path, precision: str, _batch: BatchRange) -> str:
    return write_litert(model, folder, fp16_weights=precision != "fp32")


def _write_onnx(model: onnx.ModelProto, folder: Path, _precision: str, _batch: BatchRange) -> str:
    (folder / ONNX_FILE).write_bytes(model.SerializeToString())
    return ONNX_FILE


WRITING = {
    "openvino": Writing(
        _write_ir,
        ASYMMETRIC_UINT8,
        Settings(
            fitted_share=SHARE,
            bend_activations=True,
            zero_in_middle=True,
            keep_last_blocks=True,
            keep_depthwise="small",
        ),
    ),
    "onnxruntime": Writing(_write_onnx, ASYMMETRIC_UINT8),
    "litert": Writing(_write_tflite, ASYMMETRIC_INT8_OUTPUTS, Settings(fitted_share=SHARE)),
    "tensorrt": Writing(_write_onnx, SYMMETRIC_INT8_DENSE),
    "tensorrt-rtx": Writing(_write_onnx, SYMMETRIC_INT8_DENSE),
}


def target_for(name: str, weight_bits: int | None = None) -> ExportTarget:
    """The target of that name, with INT8 weights of 8 bits or 7.

    Args:
        weight_bits: None for what this machine's own INT8 needs. Targets that never overflow
            always have 8.

    Raises:
        UsageError: 7 bits for a target that never overflows.
    """
    asked = {"--target": name, "--int8": True, "--weight-bits": weight_bits}
    check_options(Asked("export", asked))
    row, writing = TARGETS[name], WRITING[name]
    target = ExportTarget(row, writing.write, writing.scheme, writing.settings)
    if not row.overflows:
        return target
    seven = _loses_sums_here(name) if weight_bits is None else weight_bits == 7
    if not seven:
        return target
    # Without VNNI signed bytes would be moved into unsigned ones again.
    settings = replace(target.settings, zero_in_middle=False)
    return replace(target, scheme=ASYMMETRIC_UINT8_W7, settings=settings)


def _loses_sums_here(name: str) -> bool:
    """Whether this machine's kernels of a target lose large sums of weights of 8 bits."""
    is_held_back = name == "openvino" and is_x86() and setting_without_vnni() is not None
    return int8_overflows() or is_held_back
