"""Compile the engine of a bundle from its portable graph, and put it into the bundle.

TensorRT compiles for the GPU of this machine; TensorRT-RTX ahead of time for any compute
capabilities, and needs no GPU for it.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from effnet_edge.bundle import BatchRange, Bundle, BundleWriter, EngineRecord
from effnet_edge.bundle.bill import SBOM_FILE, next_bill
from effnet_edge.bundle.manifest import SIGNATURE_FILE
from effnet_edge.bundle.signing import is_signed
from effnet_edge.bundle.writing import checked_destination, file_record
from effnet_edge.errors import BackendError, BundleError, UsageError
from effnet_edge.files import probe_writable
from effnet_edge.machine import find_gpu, jetpack_version
from effnet_edge.progress import no_progress
from effnet_edge.runtime.demand.onnx_steps import refuse_greedy_onnx
from effnet_edge.runtime.interface import interface_of
from effnet_edge.runtime.tensorrt.engine_check import checked
from effnet_edge.runtime.tensorrt.library import library_of
from effnet_edge.runtime.tensorrt.plan import (
    BuildOptions,
    UncompiledGraph,
    build_plan,
    known_generations,
)
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from pathlib import Path

    from effnet_edge.bundle import Manifest
    from effnet_edge.bundle.signing import SigningKey
    from effnet_edge.machine import Gpu
    from effnet_edge.progress import Progress
    from effnet_edge.runtime.tensorrt.api import TensorRt, TensorRtRtx
    from effnet_edge.targets import Target

# GeForce RTX 30, 40 and 50: what TensorRT-RTX compiles for where nothing is asked for.
RTX_GENERATIONS = ("8.6", "8.9", "12.0")


def can_build(target: str) -> bool:
    """Whether the library of that target is here, and a GPU where it needs one."""
    try:
        library_of(target)
    except BackendError:
        return False
    return TARGETS[target].builds_ahead or find_gpu() is not None


def build_engine(
    bundle: Bundle,
    options: BuildOptions | None = None,
    on_progress: Progress = no_progress,
    key: SigningKey | None = None,
) -> Bundle:
    """Compile an engine into the bundle, as the last of its manifest's.

    It takes the place of an engine for the same GPU and DLA core, or with TensorRT-RTX the same
    compute capabilities, whatever batch and library version that was for; others stay.

    A signed bundle is signed anew with `key`, because its manifest changes, and refused without.
    The bundle is replaced as a whole once the engine is complete; engines that others built into it
    meanwhile stay. TensorRT's timing cache is kept beside it, as `BUNDLE.timing-cache`, and makes
    the next build quicker.

    Raises:
        UsageError: the bundle is not TensorRT's, an option does not fit it, it cannot be replaced
            where it is, it is signed and there is no key to sign it with, or it carries several
            graphs, among which `effnet_edge.choosing` chooses.
        BackendError: the library or the GPU is missing, the library refuses the graph, or the
            engine answers otherwise than it may.
        BundleError: the bundle cannot be written, or is another one by then.
    """
    place = place_to_build(bundle, key)
    record, plan = compile_engine(bundle, timing_cache_beside(place), options, on_progress)
    with BundleWriter(place) as writer:
        return write_engine(as_it_is_now(bundle, place, key), record, plan, writer, key)


def place_to_build(bundle: Bundle, key: SigningKey | None) -> Path:
    """The folder that a build replaces, all links to it followed.

    Raises:
        UsageError: it cannot be replaced, or is signed and there is no key to sign it anew with.
        BundleError: nothing can be written beside it.
    """
    _check_key(bundle, key)
    place = checked_destination(os.path.realpath(bundle.path))
    try:
        probe_writable(place)
    except OSError as error:
        raise BundleError(
            f"{place.parent}: cannot be written to ({error.strerror}), as a build must: copy the "
            "bundle elsewhere"
        ) from error
    return place


def as_it_is_now(bundle: Bundle, place: Path, key: SigningKey | None) -> Bundle:
    """The bundle after a build, which takes minutes: others may have built engines into it.

    With a key it is the very same one: nobody else's engines are signed.

    Raises:
        UsageError: it is signed by now, and there is no key.
        BundleError: another bundle has taken its place.
    """
    now = Bundle.load(place)
    _check_key(now, key)
    changed = now.manifest != bundle.manifest
    if changed and (key or _without_engines(now.manifest) != _without_engines(bundle.manifest)):
        raise BundleError(
            f"{bundle.path}: was replaced while it was built from, and stays as it is now: run "
            "effnet-edge build again"
        )
    return now


def _without_engines(manifest: Manifest) -> Manifest:
    plans = {each.file for each in manifest.engines}
    others = {SBOM_FILE, *plans}  # which tells of the plans, too
    files = {name: record for name, record in manifest.files.items() if name not in others}
    return replace(manifest, engines=(), files=files)


def _check_key(bundle: Bundle, key: SigningKey | None) -> None:
    """Raise UsageError for a signed bundle that there is no key to sign anew with."""
    if key is None and is_signed(bundle.path):
        raise UsageError(
            f"{bundle.path}: is signed, and an engine changes what was signed: sign it with a key "
            f"of this device, effnet-edge build --sign KEY.pem, or remove its {SIGNATURE_FILE}"
        )


def timing_cache_beside(place: Path) -> Path:
    """Where TensorRT's timing cache for a bundle is kept."""
    return place.with_name(f"{place.name}.timing-cache")


def compile_engine(
    bundle: Bundle,
    timing_cache: Path,
    options: BuildOptions | None = None,
    on_progress: Progress = no_progress,
) -> tuple[EngineRecord, bytes]:
    """An engine of a bundle's graph: what it runs on, and the plan.

    Where it runs here it has answered as the graph may.

    Args:
        timing_cache: TensorRT's, read if it is there and written after.

    Raises:
        UsageError, BackendError: as for `build_engine`.
    """
    options = options or BuildOptions()
    target = TARGETS[bundle.of_one_graph().manifest.target]
    if not target.built_on_device:
        raise UsageError(
            f"{bundle.path}: --target {target.name} bundles need no build: they run as is"
        )
    batch = _batch(bundle, options)
    if target.builds_ahead:
        _refuse_unknown_to_rtx(options)
    library = library_of(target.name)
    gpu = find_gpu(options.gpu)
    generations = _generations(library, target, options, gpu)
    plan = build_plan(
        target.name,
        _source(bundle, batch),
        generations,
        options,
        on_progress,
        None if target.builds_ahead else timing_cache,
    )
    record = EngineRecord(
        file=_file_name(target, generations, gpu, options),
        library=target.name,
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
    return checked(bundle, record, plan, options.gpu), plan


def _batch(bundle: Bundle, options: BuildOptions) -> BatchRange:
    graph = bundle.manifest.batch
    batch = options.batch or graph
    if batch.minimum < graph.minimum or batch.maximum > graph.maximum:
        raise UsageError(
            f"--batch {batch.minimum}:{batch.optimum}:{batch.maximum}: the graph takes "
            f"{graph.minimum} to {graph.maximum} images: export it again with another --batch"
        )
    return batch


def _refuse_unknown_to_rtx(options: BuildOptions) -> None:
    """What TensorRT-RTX ignores, or cannot: its engines run on one release and on no DLA.

    NVIDIA TensorRT-RTX documentation, "Engine Compatibility".
    """
    asked = {
        "--dla": options.dla_core is not None,
        "--version-compatible": options.version_compatible,
        "--hardware-compatible": options.hardware_compatible,
    }
    for name in (name for name, given in asked.items() if given):
        raise UsageError(
            f"{name}: TensorRT-RTX has no such engines: leave it out, or name the GPUs with "
            "--compute-capability"
        )


def _generations(
    library: TensorRt, target: Target, options: BuildOptions, gpu: Gpu | None
) -> tuple[str, ...]:
    asked = tuple(dict.fromkeys(options.compute_capabilities))
    if target.builds_ahead:
        return asked or _rtx_generations(cast("TensorRtRtx", library), gpu)
    if asked:
        raise UsageError("--compute-capability: TensorRT builds for the GPU of this machine only")
    if gpu is None:
        raise BackendError("there is no NVIDIA GPU here: run effnet-edge build on the device")
    return (gpu.compute_capability,)


def _rtx_generations(library: TensorRtRtx, gpu: Gpu | None) -> tuple[str, ...]:
    """The usual ones, and that of the GPU here."""
    if gpu is None or gpu.compute_capability in RTX_GENERATIONS:
        return RTX_GENERATIONS
    here = gpu.compute_capability
    return (*RTX_GENERATIONS, here) if here in known_generations(library) else RTX_GENERATIONS


def _file_name(
    target: Target, generations: tuple[str, ...], gpu: Gpu | None, options: BuildOptions
) -> str:
    """The same for engines that run on the same device: of those a bundle has one."""
    numbers = sorted(int(each.replace(".", "")) for each in generations)
    parts = ["engine", *(f"sm{number}" for number in numbers)]
    if not target.builds_ahead and gpu is not None:
        parts.append(re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-"))
    if options.dla_core is not None:
        parts.append(f"dla{options.dla_core}")
    return "-".join(parts) + ".plan"


def _source(bundle: Bundle, batch: BatchRange) -> UncompiledGraph:
    smallest, commonest, largest = (
        (size, *_image_shape(bundle)) for size in (batch.minimum, batch.optimum, batch.maximum)
    )
    graph = bundle.read(bundle.manifest.model)
    refuse_greedy_onnx(graph, interface_of(bundle.manifest), bundle.model_path)
    return UncompiledGraph(
        graph,
        str(bundle.model_path),
        bundle.manifest.input.name,
        (smallest, commonest, largest),
    )


def _image_shape(bundle: Bundle) -> tuple[int, int, int]:
    side = bundle.manifest.input
    if side.layout == "NHWC":
        return side.height, side.width, side.channels
    return side.channels, side.height, side.width


def write_engine(
    bundle: Bundle,
    record: EngineRecord,
    plan: bytes,
    writer: BundleWriter,
    key: SigningKey | None = None,
) -> Bundle:
    """Write the bundle with an engine more, as the last of its manifest's.

    Raises:
        BundleError: it cannot be written, or a file of the bundle is another by now.
    """
    others = tuple(each for each in bundle.manifest.engines if each.file != record.file)
    (writer.staging / record.file).write_bytes(plan)
    added = {record.file: file_record(writer.staging / record.file)}
    for name in bundle.manifest.files:
        if name == SBOM_FILE:
            bill = next_bill(bundle.read(name), bundle.manifest, (), added)
            (writer.staging / name).write_text(bill, encoding="utf-8")
        elif name not in (bundle.manifest.labels, record.file):
            (writer.staging / name).write_bytes(bundle.read(name))
    manifest = replace(bundle.manifest, engines=(*others, record))
    return writer.commit(manifest, bundle.labels, key)
