"""Running engines of TensorRT and TensorRT-RTX."""

from __future__ import annotations

import threading
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.runtime.device_array import DeviceArray
from effnet_edge.runtime.tensorrt.cuda import Cuda, CudaError
from effnet_edge.runtime.tensorrt.engine import Engine
from effnet_edge.runtime.tensorrt.gpu import gpu_number, need_gpu
from effnet_edge.runtime.tensorrt.lane import Lane
from effnet_edge.runtime.tensorrt.library import library_of
from effnet_edge.runtime.tensorrt.plan import (
    BuildOptions,
    UncompiledGraph,
    build_plan,
    refuse_unknown_generation,
)
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from effnet_edge.machine import Gpu
    from effnet_edge.runtime.backend import EngineSpec

_MOST_LANES = 4


class _Berth:
    """Room for one lane. Its lock is taken by `with` alone, which no interrupt can tear."""

    def __init__(self) -> None:
        self.busy = threading.Lock()
        self.lane: Lane | None = None


class TensorRtBackend:
    """An engine on a GPU, and as many lanes as callers were ever at once, four at most."""

    takes_device_arrays = True

    def __init__(self, spec: EngineSpec, target: str = "tensorrt") -> None:
        """Deserialize the engine; see `load_backend` for the errors."""
        _refuse_unsupported(spec)
        number = gpu_number(spec.device)
        gpu = need_gpu(number)
        self.device = gpu.name
        self.parallelism = (spec.streams or _MOST_LANES) if spec.throughput else 1
        self.execution_precision = spec.model_precision.upper()
        self._cuda = Cuda(number)
        self._engine = Engine(
            target,
            _plan(spec, target, gpu),
            str(spec.model_path),
            dla_core=spec.engine.dla_core if spec.engine else None,
            version_compatible=bool(spec.engine and spec.engine.version_compatible),
        )
        spec.check(self._engine.interface)
        self._berths = [_Berth() for _ in range(_MOST_LANES)]
        self._turns = count()
        self._berths[0].lane = self._new_lane()

    def infer(self, batch: npt.NDArray[np.uint8 | np.float32] | DeviceArray) -> npt.NDArray[Any]:
        """Run one batch, from host memory or where it lies on the GPU.

        Raises:
            UsageError: it lies on another GPU.
            BackendError: the device or the library failed on it.
        """
        self._refuse_other_gpu(batch)
        berth = self._free_berth()
        with berth.busy:
            self._cuda.use_here()
            lane, berth.lane = berth.lane or self._new_lane(), None
            try:
                logits = lane.run(batch)
            except CudaError as error:
                lane.close()
                raise BackendError(f"{self.device} failed on a batch: {error}") from error
            except BaseException:
                lane.close()
                raise
            berth.lane = lane
            return logits

    def close(self) -> None:
        """Release the lanes, and then the engine."""
        with suppress(CudaError):
            self._cuda.use_here()
        for berth in self._berths:
            lane, berth.lane = berth.lane, None
            if lane is not None:
                lane.close()
        self._engine.close()

    def _refuse_other_gpu(self, batch: npt.NDArray[Any] | DeviceArray) -> None:
        """To read there is a fault that the process does not recover from."""
        if isinstance(batch, DeviceArray) and batch.gpu not in (None, self._cuda.device):
            raise UsageError(
                f"the array is on GPU {batch.gpu}, and the engine on GPU {self._cuda.device}: copy "
                "it there first"
            )

    def _free_berth(self) -> _Berth:
        """One that nobody is in, if possible one that has its lane; else each in its turn."""
        free = [berth for berth in self._berths if not berth.busy.locked()]
        with_lane = [berth for berth in free if berth.lane is not None]
        if with_lane or free:
            return (with_lane or free)[0]
        return self._berths[next(self._turns) % len(self._berths)]

    def _new_lane(self) -> Lane:
        return Lane(self._cuda, self._engine)


class TensorRtRtxBackend(TensorRtBackend):
    """The same with TensorRT-RTX."""

    def __init__(self, spec: EngineSpec) -> None:
        """Deserialize the engine; see `load_backend` for the errors."""
        super().__init__(spec, "tensorrt-rtx")


def _refuse_unsupported(spec: EngineSpec) -> None:
    if spec.threads is not None:
        raise UsageError("threads: TensorRT runs on the GPU and has none: leave them out")
    if spec.streams is not None and spec.streams > _MOST_LANES:
        raise UsageError(f"streams {spec.streams}: {_MOST_LANES} at most on a GPU")
    if spec.precision not in (None, spec.model_precision):
        raise UsageError(
            f"precision {spec.precision!r}: a TensorRT engine runs the precision that it was "
            f"exported in ({spec.model_precision}): leave the precision out"
        )


def _plan(spec: EngineSpec, target: str, gpu: Gpu) -> bytes:
    """The plan in the file; a graph, which only `doctor` brings, is compiled first."""
    if spec.model_path.suffix != ".onnx":
        return spec.read(spec.model_path)
    if TARGETS[target].builds_ahead:
        refuse_unknown_generation(library_of(target), gpu, "")
    graph = UncompiledGraph(spec.read(spec.model_path), str(spec.model_path), "", None)
    return build_plan(target, graph, (gpu.compute_capability,), BuildOptions())
