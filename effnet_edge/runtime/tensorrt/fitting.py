"""Which engines this machine can run, told before anything is deserialized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.version import Version

from effnet_edge.errors import BackendError
from effnet_edge.machine import find_gpu, jetpack_version
from effnet_edge.runtime.tensorrt.library import library_of
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from effnet_edge.bundle import EngineRecord
    from effnet_edge.machine import Gpu

# The first compute capability, less its minor number, of NVIDIA's "Ampere+" hardware compatibility.
_AMPERE = 8


def can_run(target: str) -> bool:
    """Whether the library of that target and a GPU are here."""
    try:
        library_of(target)
    except BackendError:
        return False
    return find_gpu() is not None


def runs_here(engine: EngineRecord, number: int = 0) -> bool:
    """Whether this machine has the library that an engine was built for, and as GPU `number` it."""
    gpu = find_gpu(number)
    if gpu is None or not can_run(engine.library):
        return False
    return misfit(engine, gpu, str(library_of(engine.library).__version__)) is None


def misfit(engine: EngineRecord, gpu: Gpu, version: str) -> str | None:
    """Why an engine does not run on that GPU with that version of its library; None if it does.

    A plan runs on the version and the GPU model that it was built for, unless it was built to be
    compatible (NVIDIA TensorRT documentation, "Version Compatibility" and "Hardware
    Compatibility"), and on no other platform (TensorRT's support matrix, "Engine Portability");
    TensorRT-RTX's on every GPU of the compute capabilities that it names.
    """
    library = TARGETS[engine.library]
    if not _runs_on_version(engine, version):
        return f"{library.title} {engine.library_version}"
    if engine.hardware_compatible and _generation(gpu) >= _AMPERE:
        foreign = jetpack_version() is not None and engine.jetpack is None
        return "a machine that is no Jetson" if foreign else None
    if gpu.compute_capability not in engine.compute_capability:
        return f"compute capability {', '.join(engine.compute_capability)}"
    if not library.builds_ahead and engine.gpu != gpu.name:
        return f"the GPU {engine.gpu}"
    return None


def _runs_on_version(engine: EngineRecord, version: str) -> bool:
    try:
        built, here = Version(engine.library_version), Version(version)
    except ValueError:  # of a text that is no version
        return engine.library_version == version
    return built == here or (
        engine.version_compatible and built.major == here.major and built < here
    )


def _generation(gpu: Gpu) -> int:
    return int(gpu.compute_capability.partition(".")[0])
