"""Which of a bundle's engines this machine can run, told before anything is deserialized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.version import Version

from effnet_edge.errors import BackendError
from effnet_edge.machine import find_gpu, jetpack_version
from effnet_edge.runtime.tensorrt.build import build_engine
from effnet_edge.runtime.tensorrt.cuda import Cuda
from effnet_edge.runtime.tensorrt.gpu import gpu_number, need_gpu
from effnet_edge.runtime.tensorrt.library import library_of
from effnet_edge.runtime.tensorrt.plan import BuildOptions, refuse_unknown_generation
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from effnet_edge.bundle import Bundle, EngineRecord
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


def runs_here(engine: EngineRecord) -> bool:
    """Whether this machine has the library and the GPU that an engine was built for."""
    gpu = find_gpu()
    if gpu is None or not can_run(engine.library):
        return False
    return misfit(engine, gpu, str(library_of(engine.library).__version__)) is None


def with_engine(
    bundle: Bundle, device: str | None = None, *, rebuild: bool = False
) -> tuple[Bundle, EngineRecord]:
    """The bundle and its engine for this machine; `rebuild` compiles one if there is none.

    Args:
        device: which GPU, as `gpu_number` understands it.

    Raises:
        UsageError: no such device.
        BackendError: there is no GPU, no library, or no engine for them; the text says what there
            are engines for, what is here, and what to run.
    """
    target, number = bundle.manifest.target, gpu_number(device)
    try:
        gpu = need_gpu(number)
    except BackendError as error:
        raise BackendError(
            f"{bundle.path}: {error}, or see what its graph computes with "
            f"effnet-edge parity {bundle.path}"
        ) from error
    library = library_of(target)
    version = str(library.__version__)
    fitting = [each for each in bundle.manifest.engines if misfit(each, gpu, version) is None]
    if not fitting and TARGETS[target].builds_ahead:
        refuse_unknown_generation(library, gpu, f"{bundle.path}: ")
    if not fitting and rebuild:
        Cuda(number).use_here()
        bundle = build_engine(bundle, BuildOptions(gpu=number))
        fitting = [bundle.manifest.engines[-1]]
    if not fitting:
        raise BackendError(_nothing_fits(bundle, gpu, number, version))
    return bundle, fitting[-1]


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


def _nothing_fits(bundle: Bundle, gpu: Gpu, number: int, version: str) -> str:
    engines, title = bundle.manifest.engines, TARGETS[bundle.manifest.target].title
    first = f"CUDA_VISIBLE_DEVICES={number} " if number else ""
    build = f"{first}effnet-edge build {bundle.path} will {'re' if engines else ''}build it"
    if not engines:
        return f"{bundle.path}: has no engine yet: {build} (or load it with rebuild=True)"
    misfits = [misfit(each, gpu, version) for each in engines]
    built_for = " and ".join(dict.fromkeys(each for each in misfits if each is not None))
    return (
        f"{bundle.path}: its engine was built for {built_for}; here is {gpu.name}, compute "
        f"capability {gpu.compute_capability}, {title} {version}: {build} (or load it with "
        "rebuild=True)"
    )
