"""The engine of a bundle that this machine can run, built if there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.errors import BackendError
from effnet_edge.runtime.tensorrt.build import build_engine
from effnet_edge.runtime.tensorrt.cuda import Cuda
from effnet_edge.runtime.tensorrt.fitting import misfit
from effnet_edge.runtime.tensorrt.gpu import gpu_number, need_gpu
from effnet_edge.runtime.tensorrt.library import library_of
from effnet_edge.runtime.tensorrt.plan import BuildOptions, refuse_unknown_generation
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from effnet_edge.bundle import Bundle, EngineRecord
    from effnet_edge.machine import Gpu


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
