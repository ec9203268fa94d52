"""A scripted TensorRT that works through the CUDA runtime alone: it runs on a real GPU, too.

What an "engine" computes is its ONNX graph in ONNX Runtime on the host, between two copies over the
stream. Memory, streams, events, CUDA graphs and arrays of other libraries are then the GPU's own,
on machines that have a GPU and no TensorRT. No figure of an engine comes from here.
"""

from __future__ import annotations

import ctypes
import sys
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_cuda import FakeCuda
from fake_tensorrt import GPU, FakeContext, FakeTensorRt
from gpu_or_fake import put_gpu, put_runtime

from effnet_edge.machine import find_gpu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fake_tensorrt import FakeEngine

    from effnet_edge.machine import Gpu

# CUhostFn of the CUDA driver API.
HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

SLOWNESS = 1e-3
"""Seconds that a run takes at least: what is read too early is seen."""


class RefusedError(Exception):
    """A function of CUDA failed."""


class FakeTensorRtOnCuda(FakeTensorRt):
    """Of `runtime`, `cuda.bindings.runtime` or the scripted one, nothing but its functions is used.

    Attributes:
        executions: how often a run was enqueued, which the launch of a CUDA graph is not.
        while_recording: called during each recording, in the thread that records.
    """

    def __init__(self, runtime: Any) -> None:
        super().__init__(runtime)
        self.executions = 0
        self.while_recording: Callable[[], object] = lambda: None

    def new_context(self, engine: FakeEngine) -> FakeContext:
        return ContextOnCuda(engine, self)


class ContextOnCuda(FakeContext):
    """Runs copy the pixels to pinned memory, compute there, and copy the logits to the device."""

    def __init__(self, engine: FakeEngine, library: FakeTensorRtOnCuda) -> None:
        super().__init__(engine)
        self.library = library
        pixels, logits = list(engine.tensors)
        self.pixels, self.logits = self._pinned(pixels), self._pinned(logits)
        self.functions: list[Any] = []

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        self.scratch = address

    def is_capturing(self, stream: int) -> bool:
        return bool(int(checked(self.cuda.cudaStreamIsCapturing(stream))))

    def execute_async_v3(self, stream: int) -> bool:
        try:
            return super().execute_async_v3(stream)
        except RefusedError as error:
            self.engine.logger.log(1, f"Error Code 1: Cuda Runtime ({error})")
            return False

    def compute(self, stream: int, shape: tuple[int, ...], addresses: dict[str, int]) -> None:
        if self.is_capturing(stream):
            self.library.while_recording()
        self.library.executions += 1
        engine = self.engine
        pixels, logits = list(engine.tensors)
        batch = _array(self.pixels, shape, np.dtype(engine.get_tensor_dtype(pixels)))
        answer_shape = (shape[0], *engine.get_tensor_shape(logits)[1:])
        answer = _array(self.logits, answer_shape, np.dtype(np.float32))

        def run(_data: int) -> None:
            time.sleep(SLOWNESS)
            answer[...] = engine.answer(batch)

        self._copy(self.pixels, addresses[pixels], batch.nbytes, stream)
        self.functions.append(HOST_FUNCTION(run))
        self._launch(stream, self.functions[-1])
        self._copy(addresses[logits], self.logits, answer.nbytes, stream)

    def _launch(self, stream: int, function: Any) -> None:
        """By the driver itself: what the bindings wrap around a function, they free at its first
        call, which a CUDA graph's second launch does not survive.
        """
        if isinstance(self.cuda, FakeCuda):
            self.cuda.enqueue(stream, lambda: function(None))
        else:
            driver = ctypes.CDLL("libcuda.so.1")
            checked((driver.cuLaunchHostFunc(ctypes.c_void_p(stream), function, None),))

    def _copy(self, target: int, source: int, size: int, stream: int) -> None:
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyDefault
        checked(self.cuda.cudaMemcpyAsync(target, source, size, kind, stream))

    def _pinned(self, name: str) -> int:
        shape = (self.engine.largest_batch, *self.engine.get_tensor_shape(name)[1:])
        size = int(np.prod(shape)) * np.dtype(self.engine.get_tensor_dtype(name)).itemsize
        flags = self.cuda.cudaHostAllocMapped
        address = int(checked(self.cuda.cudaHostAlloc(size, flags)))
        weakref.finalize(self, self.cuda.cudaFreeHost, address)
        return address


def checked(answer: tuple[Any, ...]) -> Any:
    """What a function of the runtime gave, if it did not fail."""
    status, *values = answer
    if int(status) != 0:
        raise RefusedError(str(status))
    return values[0] if values else None


@contextmanager
def scripted_on_cuda(gpu_here: Gpu = GPU) -> Iterator[FakeTensorRtOnCuda]:
    """Within: TensorRT is scripted; CUDA is the GPU's if there is one, and scripted otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        if find_gpu() is None:
            put_runtime(patch, FakeCuda())
        from cuda.bindings import runtime

        library = FakeTensorRtOnCuda(runtime)
        patch.setitem(sys.modules, "tensorrt", library)
        put_gpu(patch, gpu_here)
        yield library


def _array(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    size = int(np.prod(shape)) * dtype.itemsize
    return np.ndarray(shape, dtype, memoryview((ctypes.c_uint8 * size).from_address(address)))
