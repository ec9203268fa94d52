"""Compile the engine of a bundle from its portable graph, and put it into the bundle.

TensorRT compiles for the GPU of this machine; TensorRT-RTX ahead of time for any compute
capabilities, and needs no GPU for it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from effnet_edge.bundle import MANIFEST_FILE, BatchRange, Bundle, BundleWriter, EngineRecord
from effnet_edge.errors import BackendError, UsageError
from effnet_edge.runtime.tensorrt.gpu import find_gpu, jetpack_version
from effnet_edge.runtime.tensorrt.library import MODULES, library_of
from effnet_edge.runtime.tensorrt.plan import BuildOptions, OnProgress, Source, build_plan

if TYPE_CHECKING:
    from effnet_edge.runtime.tensorrt.gpu import Gpu

# GeForce RTX 30, 40 and 50: what TensorRT-RTX compiles for where nothing is asked for.
RTX_GENERATIONS = ("8.6", "8.9", "12.0")


def can_build(target: str) -> bool:
    """Whether the library of that target is here, and a GPU where it needs one."""
    try:
        library_of(target)
    except BackendError:
        return False
    return target == "tensorrt-rtx" or find_gpu() is not None


def build_engine(
    bundle: Bundle,
    options: BuildOptions | None = None,
    on_progress: OnProgress = lambda _phase, _done, _total: None,
) -> Bundle:
    """Compile an engine into the bundle; engines for other machines stay in it.

    The bundle is replaced as a whole once the engine is complete. TensorRT's timing cache is kept
    beside it, as `BUNDLE.timing-cache`, and makes the next build quicker.

    Raises:
        UsageError: the bundle is not TensorRT's, or an option does not fit it.
        BackendError: the library or the GPU is missing, or the library refuses the graph.
        BundleError: the bundle cannot be written.
    """
    options = options or BuildOptions()
    target = bundle.manifest.target
    if target not in MODULES:
        raise UsageError(f"{bundle.path}: --target {target} bundles need no build: they run as is")
    batch = _batch(bundle, options)
    library = library_of(target)
    gpu = find_gpu()
    generations = _generations(target, options, gpu)
    cache = bundle.path.with_name(f"{bundle.path.name}.timing-cache")
    plan = build_plan(
        target,
        _source(bundle, batch),
        generations,
        options,
        on_progress,
        cache if target == "tensorrt" else None,
    )
    suffix = "-".join("sm" + each.replace(".", "") for each in generations)
    dla = "" if options.dla_core is None else f"-dla{options.dla_core}"
    record = EngineRecord(
        file=f"engine-{suffix}{dla}.plan",
        library=target,
        library_version=str(library.__version__),
        compute_capability=generations,
        gpu=gpu.name if gpu else None,
        cuda=gpu.cuda if gpu else None,
        jetpack=jetpack_version(),
        batch=batch,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        dla_core=options.dla_core,
    )
    return _with_engine(bundle, record, plan)


def _batch(bundle: Bundle, options: BuildOptions) -> BatchRange:
    graph = bundle.manifest.batch
    batch = options.batch or graph
    if batch.minimum < graph.minimum or batch.maximum > graph.maximum:
        raise UsageError(
            f"--batch {batch.minimum}:{batch.optimum}:{batch.maximum}: the graph takes "
            f"{graph.minimum} to {graph.maximum} images: export it again with another --batch"
        )
    return batch


def _generations(target: str, options: BuildOptions, gpu: Gpu | None) -> tuple[str, ...]:
    asked = options.compute_capabilities
    if target == "tensorrt-rtx":
        return asked or RTX_GENERATIONS
    if asked:
        raise UsageError("--compute-capability: TensorRT builds for the GPU of this machine only")
    if gpu is None:
        raise BackendError("there is no NVIDIA GPU here: run effnet-edge build on the device")
    return (gpu.compute_capability,)


def _source(bundle: Bundle, batch: BatchRange) -> Source:
    smallest, commonest, largest = (
        (size, *_image_shape(bundle)) for size in (batch.minimum, batch.optimum, batch.maximum)
    )
    return Source(
        bundle.model_path.read_bytes(),
        str(bundle.model_path),
        bundle.manifest.input.name,
        (smallest, commonest, largest),
        bundle.manifest.precision,
    )


def _image_shape(bundle: Bundle) -> tuple[int, int, int]:
    side = bundle.manifest.input
    if side.layout == "NHWC":
        return side.height, side.width, side.channels
    return side.channels, side.height, side.width


def _with_engine(bundle: Bundle, record: EngineRecord, plan: bytes) -> Bundle:
    others = tuple(each for each in bundle.manifest.engines if each.file != record.file)
    with BundleWriter(bundle.path) as writer:
        for name in bundle.manifest.files:
            if name not in (bundle.manifest.labels, MANIFEST_FILE):
                shutil.copyfile(bundle.path / name, writer.staging / name)
        (writer.staging / record.file).write_bytes(plan)
        manifest = replace(bundle.manifest, engines=(*others, record))
        return writer.commit(manifest, bundle.labels)
