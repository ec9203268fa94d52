"""Which backends work on this machine, found out by running a tiny model on each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata, resources

import numpy as np

from effnet_edge.errors import EffnetEdgeError
from effnet_edge.machine import (
    int8_overflows,
    is_arm,
    is_arm_without_fp16,
    is_x86,
    setting_without_vnni,
)
from effnet_edge.runtime.backend import EngineSpec, load_backend
from effnet_edge.targets import TARGETS, Target

# `tools/make_probe.py` writes the models: a small convolution and the means of what it gives.
_PROBE_PIXELS = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
_PROBE_LOGITS = np.array([[16.5, 12.0]], np.float32)
_SEVEN_BITS_ALONE = "INT8 models load with weights of 7 bits alone"


@dataclass(frozen=True)
class BackendStatus:
    """A backend on this machine. `detail` is its device where it works, else what is wrong."""

    name: str
    title: str
    version: str | None
    works: bool
    detail: str
    install_hint: str


def available_backends() -> list[BackendStatus]:
    """Try every backend; never raises for one that is missing or broken."""
    return [_status(row) for row in TARGETS.values()]


def _status(row: Target) -> BackendStatus:
    version: str | None = None
    try:
        version = metadata.version(row.package)
        detail, works = _probe(row), True
    except metadata.PackageNotFoundError:
        detail, works = "not installed", False
    except EffnetEdgeError as error:
        detail, works = str(error), False
    return BackendStatus(row.name, row.title, version, works, detail, row.install_hint)


def _probe(row: Target) -> str:
    """Run the probe model and name the device.

    Raises:
        EffnetEdgeError: it cannot be loaded or run, or gives wrong numbers.

    """
    probe = resources.files("effnet_edge").joinpath("data", row.probe)
    with resources.as_file(probe) as model_path:
        backend = load_backend(row.name, EngineSpec(model_path, "fp32", precision="fp32"))
        try:
            logits = backend.infer(_PROBE_PIXELS)
            if not np.allclose(logits, _PROBE_LOGITS, atol=1e-3):
                raise EffnetEdgeError(f"{row.title} gives wrong numbers: {logits.tolist()}")
            runs = f"runs {backend.execution_precision} on {backend.device}"
            return "; ".join(filter(None, (runs, _int8_here(row))))
        finally:
            backend.close()


def _int8_here(row: Target) -> str:
    """What becomes of INT8 models where not all run as such; empty elsewhere."""
    if row.overflows and int8_overflows():
        return f"{_SEVEN_BITS_ALONE}: this processor has no VNNI"
    if row.name != "openvino":
        return ""
    if is_x86() and (setting := setting_without_vnni()) is not None:
        return f"{_SEVEN_BITS_ALONE}: {setting} keeps it from VNNI"
    if not is_arm():
        return ""
    if is_arm_without_fp16():
        return "INT8 models do not load: this processor has no FP16 arithmetic"
    return "convolutions of INT8 models run in FP16"
