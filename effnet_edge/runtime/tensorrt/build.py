"""Compile the engine of a bundle from its portable graph, with TensorRT or TensorRT-RTX.

Precision is in the graph, so no builder flag chooses it: NVIDIA TensorRT documentation, "Strongly
Typed Networks". TensorRT compiles for the GPU of this machine; TensorRT-RTX ahead of time for any
compute capabilities, and needs no GPU for it.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from effnet_edge.bundle import MANIFEST_FILE, BatchRange, Bundle, BundleWriter, EngineRecord
from effnet_edge.errors import BackendError, UsageError

if TYPE_CHECKING:
    import tensorrt
    import tensorrt_rtx

    from effnet_edge.runtime.tensorrt.api import TensorRt, TensorRtRtx

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}

# GeForce RTX 30, 40 and 50: what TensorRT-RTX compiles for where nothing is asked for.
RTX_GENERATIONS = ("8.6", "8.9", "12.0")

OnProgress = Callable[[str, int, int], None]
"""Called with the builder's phase, the steps done and all steps."""


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
    """

    batch: BatchRange | None = None
    workspace_mib: int | None = None
    optimization_level: int | None = None
    dla_core: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    compute_capabilities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gpu:
    """The first GPU: its name, compute capability ("8.7") and the driver's CUDA version."""

    name: str
    compute_capability: str
    cuda: str


def can_build(target: str) -> bool:
    """Whether the library of that target is here, and a GPU where it needs one."""
    try:
        importlib.import_module(MODULES[target])
    except ImportError:
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
    library = _library(target)
    gpu = find_gpu()
    generations = _generations(target, options, gpu)
    plan = _Builder(library, target, on_progress).build(
        bundle.model_path.read_bytes(), bundle, batch, generations, options
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


def find_gpu() -> Gpu | None:
    """The first GPU that the CUDA driver knows, or None."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, version, major, minor = (ctypes.c_int() for _ in range(4))
    name = ctypes.create_string_buffer(256)
    calls = (
        lambda: cuda.cuInit(0),
        lambda: cuda.cuDeviceGet(ctypes.byref(device), 0),
        lambda: cuda.cuDriverGetVersion(ctypes.byref(version)),
        lambda: cuda.cuDeviceGetName(name, len(name), device),
        # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the CUDA driver API.
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device),
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device),
    )
    if any(call() != 0 for call in calls):  # type: ignore[no-untyped-call]
        return None
    return Gpu(
        name.value.decode(errors="replace"),
        f"{major.value}.{minor.value}",
        f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def jetpack_version(dpkg_status: Path = Path("/var/lib/dpkg/status")) -> str | None:
    """The version of the package nvidia-jetpack, or None off a Jetson."""
    try:
        text = dpkg_status.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^Package: nvidia-jetpack\n(?:.+\n)*?Version: (\S+)", text, re.MULTILINE)
    return found.group(1) if found else None


def _library(target: str) -> TensorRt:
    try:
        return cast("TensorRt", importlib.import_module(MODULES[target]))
    except ImportError as error:
        raise BackendError(
            f"{TITLES[target]} is not installed here: pip install 'effnet-edge[{target}]' "
            "(on a Jetson it comes with JetPack)"
        ) from error


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


class _Builder:
    """One run of the library's builder, its log turned into errors."""

    def __init__(self, library: TensorRt, target: str, on_progress: OnProgress) -> None:
        self._trt = library
        self._target = target
        self._errors: list[str] = []
        self._logger = self._make_logger()
        self._monitor = self._make_monitor(on_progress)

    def build(
        self,
        graph: bytes,
        bundle: Bundle,
        batch: BatchRange,
        generations: tuple[str, ...],
        options: BuildOptions,
    ) -> bytes:
        trt = self._trt
        builder = trt.Builder(self._logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(graph):
            raise BackendError(f"{bundle.model_path}: {self._title} refuses it: {self._reason()}")
        config = builder.create_builder_config()
        self._configure(config, generations, options)
        profile = builder.create_optimization_profile()
        shapes = [(size, *_image_shape(bundle)) for size in _sizes(batch)]
        profile.set_shape(bundle.manifest.input.name, *shapes)
        config.add_optimization_profile(profile)
        cache_file = bundle.path.with_name(f"{bundle.path.name}.timing-cache")
        cached = self._target == "tensorrt"
        if cached:
            self._load_cache(config, cache_file)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise BackendError(f"{self._title} cannot build {bundle.path}: {self._reason()}")
        if cached:
            _write_atomically(cache_file, bytes(config.get_timing_cache().serialize()))
        return bytes(plan)

    @property
    def _title(self) -> str:
        return f"{TITLES[self._target]} {self._trt.__version__}"

    def _configure(
        self, config: tensorrt.IBuilderConfig, generations: tuple[str, ...], options: BuildOptions
    ) -> None:
        trt = self._trt
        config.progress_monitor = self._monitor
        if options.workspace_mib is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if options.hardware_compatible:
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        if options.dla_core is not None:
            config.default_device_type = trt.DeviceType.DLA
            config.DLA_core = options.dla_core
            config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        if self._target == "tensorrt-rtx":
            self._aim(cast("tensorrt_rtx.IBuilderConfig", config), generations)

    def _aim(self, config: tensorrt_rtx.IBuilderConfig, generations: tuple[str, ...]) -> None:
        config.num_compute_capabilities = len(generations)
        for index, generation in enumerate(generations):
            config.set_compute_capability(self._capability(generation), index)

    def _capability(self, generation: str) -> tensorrt_rtx.ComputeCapability:
        known = cast("TensorRtRtx", self._trt).ComputeCapability.__members__
        name = f"SM{generation.replace('.', '')}"
        if name not in known:
            numbers = sorted(int(each[2:]) for each in known if each.startswith("SM"))
            choices = ", ".join(f"{number // 10}.{number % 10}" for number in numbers)
            raise UsageError(f"--compute-capability {generation}: {self._title} knows {choices}")
        return known[name]

    def _load_cache(self, config: tensorrt.IBuilderConfig, file: Path) -> None:
        content = file.read_bytes() if file.is_file() else b""
        cache = config.create_timing_cache(content)
        if cache is None or not config.set_timing_cache(cache, False):
            # Another GPU's or version's: TensorRT verifies it.
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def _reason(self) -> str:
        """What the library logged first; the rest is where in its sources it happened."""
        lines = [line for error in self._errors for line in error.splitlines() if line.strip()]
        told = [line for line in lines if "Error Code" in line and "Cuda Runtime" not in line]
        return " ".join((told or lines or ["it does not say why"])[0].split())[:400]

    def _make_logger(self) -> Any:
        trt, errors = self._trt, self._errors

        class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.ERROR:
                    errors.append(message)

        return Logger()

    def _make_monitor(self, on_progress: OnProgress) -> Any:
        class Monitor(self._trt.IProgressMonitor):  # type: ignore[name-defined, misc]
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
                return True

            def phase_finish(self, name: str) -> None:
                self._steps.pop(name, None)

        return Monitor()


def _image_shape(bundle: Bundle) -> tuple[int, int, int]:
    side = bundle.manifest.input
    if side.layout == "NHWC":
        return side.height, side.width, side.channels
    return side.channels, side.height, side.width


def _sizes(batch: BatchRange) -> tuple[int, int, int]:
    return batch.minimum, batch.optimum, batch.maximum


def _with_engine(bundle: Bundle, record: EngineRecord, plan: bytes) -> Bundle:
    others = tuple(each for each in bundle.manifest.engines if each.file != record.file)
    with BundleWriter(bundle.path) as writer:
        for name in bundle.manifest.files:
            if name not in (bundle.manifest.labels, MANIFEST_FILE):
                shutil.copyfile(bundle.path / name, writer.staging / name)
        (writer.staging / record.file).write_bytes(plan)
        manifest = replace(bundle.manifest, engines=(*others, record))
        return writer.commit(manifest, bundle.labels)


def _write_atomically(path: Path, content: bytes) -> None:
    staging = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        staging.write_bytes(content)
        staging.replace(path)
    except OSError as error:
        staging.unlink(missing_ok=True)
        raise BackendError(f"{path}: cannot write the timing cache: {error.strerror}") from error
