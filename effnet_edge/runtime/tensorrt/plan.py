"""Compile an ONNX graph into a plan with the builder of TensorRT or TensorRT-RTX.

Precision is in the graph, so no builder flag chooses it: NVIDIA TensorRT documentation, "Strongly
Typed Networks".
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.files import write_whole
from effnet_edge.progress import no_progress
from effnet_edge.runtime.tensorrt.library import ErrorLog, library_of
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import tensorrt
    import tensorrt_rtx

    from effnet_edge.bundle import BatchRange
    from effnet_edge.machine import Gpu
    from effnet_edge.progress import Progress
    from effnet_edge.runtime.tensorrt.api import TensorRt, TensorRtRtx


# What TensorRT-RTX 1.7 says of compute capability 7.5 and a matrix product in FP32.
_TURING_REFUSES = "Turing (SM75): FP32 GEMM is not supported"
_TURING_HINT = ": for compute capability 7.5 export it with --fp16 or --int8"

_HANGUP = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []


@dataclass(frozen=True)
class BuildOptions:
    """How to compile; None and False leave it to the library.

    Attributes:
        batch: sizes the engine takes, within the bundle's; the bundle's own if None.
        workspace_mib: memory that the builder may use for a layer, MiB.
        optimization_level: 0 (builds fastest) to 5 (runs fastest).
        dla_core: run on this DLA core, and on the GPU what it cannot.
        version_compatible: runs on newer TensorRT versions of the same major version, too.
        hardware_compatible: runs on all GPUs from Ampere on.
        compute_capabilities: for TensorRT-RTX ("8.6"); three GeForce generations if empty.
        gpu: number of the GPU to build for, which is the calling thread's own: TensorRT builds
            on that.
    """

    batch: BatchRange | None = None
    workspace_mib: int | None = None
    optimization_level: int | None = None
    dla_core: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    compute_capabilities: tuple[str, ...] = ()
    gpu: int = 0


@dataclass(frozen=True)
class UncompiledGraph:
    """A graph to compile.

    Attributes:
        graph: the ONNX model, serialized.
        name: what errors call it.
        input_name: the one input's.
        shapes: of the input for the smallest, the commonest and the largest batch; None where the
            graph has a static shape.
    """

    graph: bytes
    name: str
    input_name: str
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None


def build_plan(
    target: str,
    source: UncompiledGraph,
    generations: tuple[str, ...],
    options: BuildOptions,
    on_progress: Progress = no_progress,
    timing_cache: Path | None = None,
) -> bytes:
    """The plan: what the runtime deserializes.

    Args:
        generations: the compute capabilities to build for, which only TensorRT-RTX chooses.
        on_progress: called with the builder's phase, the steps done and all steps.
        timing_cache: TensorRT's, read if it is there and written after.

    Ctrl-C ends the build at its next step.

    Raises:
        BackendError: the library is not installed, or refuses the graph.
        UsageError: it does not know a compute capability, or there is no such DLA core.
    """
    library = library_of(target)
    log = ErrorLog(library)
    title = f"{TARGETS[target].title} {library.__version__}"
    builder = library.Builder(log.logger)
    typed = 1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = library.OnnxParser(network, log.logger)
    if not parser.parse(source.graph):
        raise BackendError(f"{source.name}: {title} refuses it: {log.reason()}")
    config = builder.create_builder_config()
    _configure(library, config, options)
    if options.dla_core is not None:
        _choose_dla(library, config, title, options.dla_core, builder.num_DLA_cores)
    if TARGETS[target].builds_ahead:
        _aim(
            cast("TensorRtRtx", library),
            cast("tensorrt_rtx.IBuilderConfig", config),
            title,
            generations,
        )
    if source.shapes is not None:
        profile = builder.create_optimization_profile()
        profile.set_shape(source.input_name, *source.shapes)
        config.add_optimization_profile(profile)
    if timing_cache is not None:
        _load_cache(config, timing_cache)
        log.forget()
    with _deferred_interrupts() as interrupts:
        config.progress_monitor = _monitor(library, on_progress, interrupts)
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = log.reason()
        hint = _TURING_HINT if _TURING_REFUSES in reason else ""
        raise BackendError(f"{title} cannot build {source.name}: {reason}{hint}")
    if timing_cache is not None:
        _write_cache(timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _configure(library: TensorRt, config: tensorrt.IBuilderConfig, options: BuildOptions) -> None:
    # What the inspector tells of each layer: types, formats, tactics.
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    # What a graph has in FP32 is to be exact: TF32 rounds factors to as many digits as FP16 has.
    config.clear_flag(library.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(library.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = library.HardwareCompatibilityLevel.AMPERE_PLUS


def _choose_dla(
    library: TensorRt, config: tensorrt.IBuilderConfig, title: str, core: int, cores: int
) -> None:
    if core >= cores:
        there = f"0 to {cores - 1}" if cores > 1 else "0 alone"
        raise UsageError(
            f"--dla {core}: {title} finds {there if cores else 'no DLA core'} here"
            f"{'' if cores else ': leave it out'}"
        )
    config.default_device_type = library.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(library.BuilderFlag.GPU_FALLBACK)


def _aim(
    library: TensorRtRtx,
    config: tensorrt_rtx.IBuilderConfig,
    title: str,
    generations: tuple[str, ...],
) -> None:
    config.num_compute_capabilities = len(generations)
    for index, generation in enumerate(generations):
        config.set_compute_capability(_capability(library, title, generation), index)


def known_generations(library: TensorRtRtx) -> list[str]:
    """The compute capabilities that TensorRT-RTX compiles for, the oldest first."""
    members = library.ComputeCapability.__members__
    numbers = sorted(int(each[2:]) for each in members if each.startswith("SM"))
    return [f"{number // 10}.{number % 10}" for number in numbers]


def refuse_unknown_generation(library: TensorRt, gpu: Gpu, whose: str) -> None:
    """TensorRT-RTX has no engines for GPUs of data centres, such as compute capability 9.0.

    Raises:
        BackendError: it has none for this GPU; the text begins with `whose`.
    """
    known = known_generations(cast("TensorRtRtx", library))
    if gpu.compute_capability not in known:
        raise BackendError(
            f"{whose}TensorRT-RTX {library.__version__} has no engines for {gpu.name}, "
            f"compute capability {gpu.compute_capability}, only for {', '.join(known)}: export "
            "for it with --target tensorrt"
        )


def _capability(
    library: TensorRtRtx, title: str, generation: str
) -> tensorrt_rtx.ComputeCapability:
    known = known_generations(library)
    if generation not in known:
        raise UsageError(f"--compute-capability {generation}: {title} knows {', '.join(known)}")
    members = library.ComputeCapability.__members__
    capability: tensorrt_rtx.ComputeCapability = members[f"SM{generation.replace('.', '')}"]
    return capability


def _load_cache(config: tensorrt.IBuilderConfig, file: Path) -> None:
    content = b""
    with suppress(OSError):  # what cannot be read is begun anew, as what does not fit
        content = file.read_bytes() if file.is_file() else b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        # Another GPU's or version's: TensorRT verifies it.
        config.set_timing_cache(config.create_timing_cache(b""), False)


@contextmanager
def _deferred_interrupts() -> Iterator[list[int]]:
    """Within, SIGINT, SIGTERM and SIGHUP are only noted, in the list; handlers get them after.

    A handler that raises would do so in the progress monitor, and TensorRT prints a traceback of
    what that raises, and forgets it. Other threads than the main one get no signals.
    """
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    numbers = [signal.SIGINT, signal.SIGTERM, *_HANGUP]
    handlers = {each: signal.getsignal(each) for each in numbers}
    usual = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in usual:
        signal.signal(number, lambda number, _frame: noted.append(number))
    try:
        yield noted
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        if noted:
            usual[signal.Signals(noted[0])](noted[0], None)


def _monitor(library: TensorRt, on_progress: Progress, interrupts: list[int]) -> Any:
    class Monitor(library.IProgressMonitor):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self._steps[name] = steps
                on_progress(name, 0, steps)

        def step_complete(self, name: str, step: int) -> bool:
            if name in self._steps:
                on_progress(name, step + 1, self._steps[name])
            return not interrupts

        def phase_finish(self, name: str) -> None:
            self._steps.pop(name, None)

    return Monitor()


def _write_cache(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content, is_cache=True)
    except OSError as error:
        raise BackendError(f"{path}: cannot write the timing cache: {error.strerror}") from error
