"""A scripted TensorRT for the runner's bookkeeping on machines without a GPU.

What an "engine" computes is its ONNX graph in ONNX Runtime: no figure of a GPU comes from here.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from fake_cuda import ILLEGAL_ADDRESS, DeviceFaultError, FakeCuda

from effnet_edge.machine import Gpu

if TYPE_CHECKING:
    import numpy.typing as npt

GPU = Gpu("Test GPU", "8.7", "12.6")


VERSION = "10.3.0.30"


RTX_VERSION = "1.7.1.116"


PLAN = b"PLAN"


COMPATIBLE_PLAN = b"COMPATIBLE PLAN"
"""A plan that carries a lean runtime: code for the host."""


BROKEN_PLAN = b"BROKEN PLAN"


FAULTY_PLAN = b"FAULTY PLAN"
"""A plan whose runs fault on the device."""


class FakeTensorRt:
    """The parts of the module `tensorrt` that the runner calls.

    Attributes:
        contexts: how many execution contexts were made.
        capturable: whether runs may be recorded; TensorRT fails to enqueue where they may not.
        before_10_1: whether device memory is set as in TensorRT 10.0.
        dla_cores: how many there are.
        configs: of all builds.
        runtimes: all that were made.
        build_error: what every build fails with.
        inspection: what the inspector tells.
    """

    __version__ = VERSION
    BuilderFlag = SimpleNamespace(
        GPU_FALLBACK="GPU_FALLBACK", TF32="TF32", VERSION_COMPATIBLE="VERSION_COMPATIBLE"
    )
    DeviceType = SimpleNamespace(GPU="GPU", DLA="DLA")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED=2)
    HardwareCompatibilityLevel = SimpleNamespace(NONE="NONE", AMPERE_PLUS="AMPERE_PLUS")
    LayerInformationFormat = SimpleNamespace(JSON="JSON")
    MemoryPoolType = SimpleNamespace(WORKSPACE="WORKSPACE")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    ProfilingVerbosity = SimpleNamespace(DETAILED="DETAILED")
    TensorIOMode = SimpleNamespace(INPUT=1, OUTPUT=2)

    class IProgressMonitor:
        pass

    class ILogger:
        ERROR = 1

        def log(self, severity: int, message: str) -> None:
            raise NotImplementedError

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.contexts = 0
        self.capturable = True
        self.before_10_1 = False
        self.dla_cores = 0
        self.configs: list[FakeConfig] = []
        self.runtimes: list[FakeRuntime] = []
        self.build_error: str | None = None
        self.inspection = '{"Layers": []}'
        self.profiles: dict[bytes, tuple[tuple[int, ...], ...]] = {}

    def Builder(self, logger: Any) -> FakeBuilder:
        return FakeBuilder(self, logger)

    def OnnxParser(self, network: FakeNetwork, _logger: Any) -> Any:
        def parse(graph: bytes) -> bool:
            network.graph = graph
            return True

        return SimpleNamespace(parse=parse)

    def nptype(self, dtype: Any) -> Any:
        return dtype

    def Runtime(self, logger: Any) -> FakeRuntime:
        self.runtimes.append(FakeRuntime(self, logger))
        return self.runtimes[-1]

    def new_context(self, engine: FakeEngine) -> FakeContext:
        return FirstContext(engine) if self.before_10_1 else SizedContext(engine)


class FakeTensorRtRtx(FakeTensorRt):
    """The parts of the module `tensorrt_rtx`."""

    __version__ = RTX_VERSION
    ComputeCapability = SimpleNamespace(
        __members__={
            name: name for name in ("NONE", "CURRENT", "SM75", "SM86", "SM87", "SM89", "SM120")
        }
    )


@dataclass(slots=True)
class FakeNetwork:
    graph: bytes = b""


@dataclass(slots=True)
class FakeTimingCache:
    """Times of the GPU that it names, of so many builds."""

    text: str = f"{GPU.name}: 0 builds"

    def serialize(self) -> bytes:
        return self.text.encode()


@dataclass(slots=True)
class FakeConfig:
    """What a build was asked for. Of a name that it does not have, nothing can be set."""

    logger: Any
    flags: set[str] = field(default_factory=lambda: {"TF32"})
    limits: dict[str, int] = field(default_factory=dict)
    profiles: list[dict[str, Any]] = field(default_factory=list)
    capabilities: dict[int, str] = field(default_factory=dict)
    cache: FakeTimingCache | None = None
    progress_monitor: Any = None
    profiling_verbosity: str = "LAYER_NAMES_ONLY"
    builder_optimization_level: int = 3
    hardware_compatibility_level: str = "NONE"
    default_device_type: str = "GPU"
    DLA_core: int = -1
    num_compute_capabilities: int = 0

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.limits[pool] = size

    def set_compute_capability(self, capability: str, index: int) -> bool:
        self.capabilities[index] = capability
        return True

    def add_optimization_profile(self, profile: FakeProfile) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> FakeTimingCache | None:
        if content and not content.endswith(b"builds"):
            self.logger.log(1, "[timingCache.cpp::read] Error Code 1: Serialization (bad cache)")
            return None
        return FakeTimingCache(content.decode()) if content else FakeTimingCache()

    def set_timing_cache(self, cache: FakeTimingCache, ignore_mismatch: bool) -> bool:
        if not (ignore_mismatch or cache.text.startswith(GPU.name)):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> FakeTimingCache | None:
        return self.cache


@dataclass(slots=True)
class FakeProfile:
    shapes: dict[str, Any] = field(default_factory=dict)

    def set_shape(self, name: str, smallest: Any, commonest: Any, largest: Any) -> None:
        self.shapes[name] = (smallest, commonest, largest)


class FakeBuilder:
    def __init__(self, library: FakeTensorRt, logger: Any) -> None:
        self.library, self.logger = library, logger
        self.num_DLA_cores = library.dla_cores

    def create_network(self, flags: int) -> FakeNetwork:
        assert flags == 1 << 1, "strongly typed, and nothing else"
        return FakeNetwork()

    def create_builder_config(self) -> FakeConfig:
        self.library.configs.append(FakeConfig(self.logger))
        return self.library.configs[-1]

    def create_optimization_profile(self) -> FakeProfile:
        return FakeProfile()

    def build_serialized_network(self, network: FakeNetwork, config: FakeConfig) -> bytes | None:
        if not self._went_through(config.progress_monitor):
            self.logger.log(1, "[progress.cpp::next] Error Code 7: BuildCanceled (by user)")
            return None
        if self.library.build_error is not None:
            self.logger.log(1, self.library.build_error)
            return None
        compatible = "VERSION_COMPATIBLE" in config.flags
        plan = (COMPATIBLE_PLAN if compatible else PLAN) + network.graph
        if config.profiles:
            self.library.profiles[plan] = next(iter(config.profiles[0].values()))
        if config.cache is not None:
            builds = int(config.cache.text.split()[-2]) + 1
            config.cache.text = f"{GPU.name}: {builds} builds"
        return plan

    def _went_through(self, monitor: Any) -> bool:
        """A phase of two steps, the first of which has a phase of its own."""
        monitor.phase_start("Building engine", None, 2)
        monitor.phase_start("Timing", "Building engine", 30)
        go_on = monitor.step_complete("Timing", 0)
        monitor.phase_finish("Timing")
        go_on = go_on and all(monitor.step_complete("Building engine", step) for step in (0, 1))
        monitor.phase_finish("Building engine")
        return bool(go_on)


class FakeRuntime:
    __slots__ = ("DLA_core", "engine_host_code_allowed", "library", "logger")

    def __init__(self, library: FakeTensorRt, logger: Any) -> None:
        self.library, self.logger = library, logger
        self.DLA_core = -1
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
        if not plan.startswith((PLAN, FAULTY_PLAN, COMPATIBLE_PLAN)):
            self.logger.log(
                1, "[runtime.cpp::parse::17] Error Code 1: Serialization (magic tag mismatch)"
            )
            return None
        if plan.startswith(COMPATIBLE_PLAN) and not self.engine_host_code_allowed:
            self.logger.log(1, "[runtime.cpp::load::9] Error Code 4: host code is not allowed")
            return None
        return FakeEngine(self.library, self.logger, plan)


class FakeEngine:
    def __init__(self, library: FakeTensorRt, logger: Any, plan: bytes) -> None:
        self.library, self.logger = library, logger
        self.faulty = plan.startswith(FAULTY_PLAN)
        self.profile = library.profiles.get(plan)
        kinds = (PLAN, FAULTY_PLAN, COMPATIBLE_PLAN)
        graph = plan.removeprefix(next(kind for kind in kinds if plan.startswith(kind)))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options)
        self.tensors = {
            t.name: t for t in (*self.session.get_inputs(), *self.session.get_outputs())
        }
        self.num_io_tensors = len(self.tensors)
        if library.before_10_1:
            self.device_memory_size = 256
        else:
            self.device_memory_size_v2 = 256

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> int:
        return 1 if name == self.session.get_inputs()[0].name else 2

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self.tensors[name].shape)

    def get_tensor_dtype(self, name: str) -> Any:
        return np.uint8 if self.tensors[name].type == "tensor(uint8)" else np.float32

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert profile == 0
        if self.profile is not None:
            return list(self.profile)
        return [(n, *self.get_tensor_shape(name)[1:]) for n in (1, 4, 8)]

    def create_engine_inspector(self) -> Any:
        def get_engine_information(form: str) -> str:
            assert form == "JSON"
            return self.library.inspection

        return SimpleNamespace(get_engine_information=get_engine_information)

    def create_execution_context(self, strategy: int) -> FakeContext:
        assert strategy == self.library.ExecutionContextAllocationStrategy.USER_MANAGED
        self.library.contexts += 1
        return self.library.new_context(self)

    @property
    def largest_batch(self) -> int:
        pixels = self.session.get_inputs()[0].name
        static = self.get_tensor_shape(pixels)[0]
        return static if static > 0 else self.get_tensor_profile_shape(pixels, 0)[2][0]

    def answer(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Logits (N, classes)."""
        logits = self.session.run(None, {self.session.get_inputs()[0].name: batch})[0]
        return np.ascontiguousarray(logits)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.cuda = engine, engine.library.cuda
        self.shape: tuple[int, ...] | None = None
        self.addresses: dict[str, int] = {}
        self.scratch = 0
        self.recorded = False
        self.warm_for: tuple[int, ...] | None = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert not self.recorded, "a context must not change after its graph was recorded"
        allowed = self.engine.get_tensor_shape(name)
        if shape[0] > self.engine.largest_batch or (allowed[0] > 0 and shape[0] != allowed[0]):
            self.engine.logger.log(1, f"[IExecutionContext] shape {shape} out of the profile")
            return False
        self.shape = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert not self.recorded
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert self.scratch
        assert self.shape is not None
        if self.is_capturing(stream):
            assert self.warm_for == self.shape, "TensorRT wants a run before the recording"
            if not self.engine.library.capturable:
                self.engine.logger.log(1, "operation not permitted when stream is capturing")
                return False
            self.recorded = True
        self.warm_for = self.shape
        self.compute(stream, self.shape, dict(self.addresses))
        return True

    def is_capturing(self, stream: int) -> bool:
        return self.cuda.is_capturing(stream)

    def compute(self, stream: int, shape: tuple[int, ...], addresses: dict[str, int]) -> None:
        """Enqueue one run."""
        self.cuda.enqueue(stream, lambda: self._run(shape, addresses))

    def _run(self, shape: tuple[int, ...], addresses: dict[str, int]) -> None:
        if self.engine.faulty:
            raise DeviceFaultError(ILLEGAL_ADDRESS)
        (pixels,), (logits,) = self.engine.session.get_inputs(), self.engine.session.get_outputs()
        dtype = np.dtype(self.engine.get_tensor_dtype(pixels.name))
        size = int(np.prod(shape)) * dtype.itemsize
        source = memoryview(self.cuda.memory_at(addresses[pixels.name], size))
        answer = self.engine.answer(np.ndarray(shape, dtype, source))
        target = self.cuda.memory_at(addresses[logits.name], answer.nbytes)
        ctypes.memmove(target, answer.ctypes.data, answer.nbytes)


class FirstContext(FakeContext):
    """Of TensorRT 10.0."""

    @property
    def device_memory(self) -> int:
        raise AssertionError("it can be set only")

    @device_memory.setter
    def device_memory(self, address: int) -> None:
        self.cuda.memory_at(address, self.engine.device_memory_size)
        self.scratch = address


class SizedContext(FakeContext):
    """Of TensorRT 10.1 and later."""

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        self.cuda.memory_at(address, size)
        self.scratch = address
