"""The bundle as this machine runs it: with an engine compiled here, where there is such a thing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from effnet_edge.arguments import check_choice, check_text, whole_number
from effnet_edge.machine import most_threads
from effnet_edge.runtime.backend import EngineSpec
from effnet_edge.runtime.interface import interface_of
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from effnet_edge.bundle import Bundle, EngineRecord, Manifest

EXECUTION_PRECISIONS = ("fp32", "fp16", "bf16")


def runnable(
    bundle: Bundle,
    *,
    device: str | None,
    threads: int | None,
    precision: str | None,
    throughput: bool,
    streams: int | None,
    rebuild: bool,
) -> tuple[Bundle, EngineSpec]:
    """The bundle as its engine runs it, and what a backend has to know to load that.

    Raises:
        UsageError: no such device, what no engine has, or several graphs of which none was chosen.
        BackendError: there is no engine for this machine, and it is not to be built.

    """
    if threads is not None:
        threads = whole_number("threads", threads, 1, most_threads())
    if streams is not None:
        streams = whole_number("streams", streams, 1, most_threads())
    if device is not None:
        check_text("device", device)
    if precision is not None:
        check_choice("precision", precision, EXECUTION_PRECISIONS)
    bundle, engine = _with_engine(bundle, device, rebuild=rebuild)
    manifest = bundle.manifest
    return bundle, EngineSpec(
        model_path=bundle.path / engine.file if engine else bundle.model_path,
        model_precision=manifest.precision,
        built_with=manifest.tools.get(TARGETS[manifest.target].package),
        engine=engine,
        device=device,
        threads=threads,
        precision=precision or ("fp32" if manifest.precision == "fp32" else None),
        throughput=throughput or streams is not None,
        streams=streams,
        read=lambda path: bundle.read(path.name),
        interface=interface_of(manifest),
        overflows=_overflows(manifest),
    )


def _overflows(manifest: Manifest) -> bool:
    calibration = manifest.calibration
    if manifest.precision != "int8" or not TARGETS[manifest.target].overflows:
        return False
    return calibration is not None and calibration.weight_bits == 8


def _with_engine(
    bundle: Bundle, device: str | None, *, rebuild: bool
) -> tuple[Bundle, EngineRecord | None]:
    """Where a model is compiled on the device: the bundle narrowed to that engine, and it."""
    if not TARGETS[bundle.of_one_graph().manifest.target].built_on_device:
        return bundle, None
    from effnet_edge.runtime.tensorrt.selection import with_engine

    bundle, engine = with_engine(bundle, device, rebuild=rebuild)
    narrowed = replace(bundle.manifest, batch=engine.batch)
    return replace(bundle, manifest=narrowed), engine
