"""The engines that a bundle can be made for: one row a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from effnet_calibration.schemes import (
    ASYMMETRIC_UINT8,
    ASYMMETRIC_UINT8_W7,
    SYMMETRIC_INT8_DENSE,
    QuantizationScheme,
)
from effnet_edge.bundle import BatchRange
from effnet_edge.errors import UsageError
from effnet_edge.machine import int8_overflows
from effnet_edge.parity import EXACT_GATES, Gate
from effnet_export.gate import HALF_PRECISION, INT8
from effnet_export.openvino_ir import write_openvino_ir

if TYPE_CHECKING:
    from effnet_edge.outputs import OutputKind

ONNX_FILE = "model.onnx"

WriteModel = Callable[[onnx.ModelProto, Path, str, BatchRange], str]


@dataclass(frozen=True)
class Target:
    """A kind of engine.

    Attributes:
        name: what `--target` and the manifest call it, and the backend that runs it.
        precisions: those that it can be exported in, the default first.
        refusal: why not in another one.
        scheme: of INT8 activations.
        write: writes the model file(s) into a folder and gives the main one's name.
        built_on_device: whether the bundle holds a portable, strongly typed graph, from which
            `effnet-edge build` makes the engine.
    """

    name: str
    precisions: tuple[str, ...]
    refusal: str
    scheme: QuantizationScheme
    write: WriteModel
    built_on_device: bool = False

    def precision(self, asked: str | None) -> str:
        """The precision to export in.

        Raises:
            UsageError: the target does not have the one asked for.
        """
        if asked is None:
            return self.precisions[0]
        if asked not in self.precisions:
            raise UsageError(f"--{asked} with --target {self.name}: {self.refusal}")
        return asked

    def gates(self, precision: str) -> Mapping[OutputKind, Gate]:
        """What the finished engine must hold, by the kind of output."""
        return {"fp32": EXACT_GATES, "fp16": HALF_PRECISION, "int8": INT8}[precision]


def _write_ir(model: onnx.ModelProto, folder: Path, precision: str, batch: BatchRange) -> str:
    return write_openvino_ir(model, folder, batch=batch, fp16_weights=precision != "fp32")


def _write_onnx(model: onnx.ModelProto, folder: Path, _precision: str, _batch: BatchRange) -> str:
    (folder / ONNX_FILE).write_bytes(model.SerializeToString())
    return ONNX_FILE


TARGETS = {
    target.name: target
    for target in (
        Target(
            "openvino",
            ("fp16", "fp32", "int8"),
            "choose --fp16 (weights in FP16, the device's fastest arithmetic) or --fp32",
            ASYMMETRIC_UINT8,
            _write_ir,
        ),
        Target(
            "onnxruntime",
            ("fp32", "int8"),
            "onnxruntime's CPU provider has no FP16 convolutions: use --fp32 or --int8",
            ASYMMETRIC_UINT8,
            _write_onnx,
        ),
        *(
            Target(
                name,
                ("fp16", "fp32", "int8"),
                "choose --fp16, --int8 or --fp32",
                SYMMETRIC_INT8_DENSE,
                _write_onnx,
                built_on_device=True,
            )
            for name in ("tensorrt", "tensorrt-rtx")
        ),
    )
}


def target_for(name: str, weight_bits: int | None = None) -> Target:
    """The target of that name, with INT8 weights of 8 bits or 7.

    Args:
        weight_bits: None for what this machine's own INT8 needs. GPUs always have 8.

    Raises:
        UsageError: 7 bits for a target that does not run on a CPU.
    """
    target = TARGETS[name]
    if target.scheme != ASYMMETRIC_UINT8:
        if weight_bits == 7:
            raise UsageError(f"--weight-bits 7 is for x86 processors, not for --target {name}")
        return target
    seven = int8_overflows() if weight_bits is None else weight_bits == 7
    return replace(target, scheme=ASYMMETRIC_UINT8_W7) if seven else target
