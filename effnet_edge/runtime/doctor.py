"""Which backends work on this machine, found out by running a tiny model on each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata, resources

import numpy as np

from effnet_edge.errors import EffnetEdgeError
from effnet_edge.runtime.backend import ROOMS, BackendRoom, EngineSpec

# `tools/make_probe.py` writes the model: the means of the three channels times a small matrix.
_PROBE_PIXELS = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
_PROBE_LOGITS = np.array([[16.5, 12.0]], np.float32)


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
    return [_status(name, room) for name, room in ROOMS.items()]


def _status(name: str, room: BackendRoom) -> BackendStatus:
    try:
        version = metadata.version(room.package)
    except metadata.PackageNotFoundError:
        return BackendStatus(name, room.title, None, False, "not installed", room.install_hint)
    try:
        detail, works = _probe(room), True
    except EffnetEdgeError as error:
        detail, works = str(error), False
    return BackendStatus(name, room.title, version, works, detail, room.install_hint)


def _probe(room: BackendRoom) -> str:
    """Run the probe model and name the device.

    Raises:
        EffnetEdgeError: it cannot be loaded or run, or gives wrong numbers.

    """
    probe = resources.files("effnet_edge").joinpath("data", "probe.onnx")
    with resources.as_file(probe) as model_path:
        backend = room.load(EngineSpec(model_path, "fp32", precision="fp32"))
        try:
            logits = backend.infer(_PROBE_PIXELS)
            if not np.allclose(logits, _PROBE_LOGITS, atol=1e-3):
                raise EffnetEdgeError(f"{room.title} gives wrong numbers: {logits.tolist()}")
            return f"runs {backend.execution_precision} on {backend.device}"
        finally:
            backend.close()
