"""A lane: everything that one batch at a time needs on the GPU, allocated once."""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.errors import BackendError
from effnet_edge.runtime.device_array import DeviceArray
from effnet_edge.runtime.tensorrt.cuda import Cuda, CudaError

if TYPE_CHECKING:
    import numpy.typing as npt

    from effnet_edge.runtime.tensorrt.engine import Engine

# CUDA graphs that a lane keeps, each with an execution context: batch sizes and camera buffers
# that come again and again are few.
KEPT_GRAPHS = 8
_REMEMBERED_BINDINGS = 32


@dataclass(frozen=True)
class _Binding:
    """What a CUDA graph is recorded for: so many images, read at that address of the device.

    `uploads` tells whether they are copied there first, from the lane's host memory.
    """

    images: int
    address: int
    uploads: bool


class Lane:
    """One stream, one set of buffers, and the execution contexts that use them in turn.

    A binding that comes for the second time gets a context of its own and is recorded as a CUDA
    graph. A graph belongs to the context that it was recorded from, which must not change after;
    the contexts of a lane share their scratch memory, because only one runs at a time (NVIDIA
    TensorRT documentation, "CUDA Graphs").
    """

    def __init__(self, cuda: Cuda, engine: Engine) -> None:
        """Allocate.

        Raises:
            CudaError: not enough memory.
            BackendError: TensorRT makes no execution context.
        """
        self._cuda, self._engine = cuda, engine
        self._graphs: OrderedDict[_Binding, _Recorded] = OrderedDict()
        self._seen: OrderedDict[_Binding, None] = OrderedDict()
        with ExitStack() as stack:
            self._stream = cuda.new_stream()
            stack.callback(cuda.free_stream, self._stream)
            self._scratch = cuda.allocate(max(engine.scratch_bytes, 1))
            stack.callback(cuda.free, self._scratch)
            self._input = stack.enter_context(_Transfer(cuda, engine.input_bytes))
            self._output = stack.enter_context(_Transfer(cuda, engine.output_bytes))
            self._context = self._new_context()
            self._resources = stack.pop_all()

    def run(self, batch: npt.NDArray[np.uint8 | np.float32] | DeviceArray) -> npt.NDArray[Any]:
        """Logits (N, classes) of one batch, in memory of their own.

        Raises:
            CudaError: the device failed; the lane is of no more use.
            BackendError: TensorRT refused the batch.
        """
        largest = self._engine.largest_batch
        if len(batch) > largest:
            raise BackendError(f"the engine takes {largest} images at most, not {len(batch)}")
        if isinstance(batch, DeviceArray):
            if batch.producer is not None:
                self._cuda.order_after(self._stream, batch.producer)
            binding = _Binding(len(batch), batch.pointer, uploads=False)
        else:
            self._input.array(batch.shape, batch.dtype)[...] = batch
            binding = _Binding(len(batch), self._input.device, uploads=True)
        self._start(binding)
        self._cuda.wait_for(self._stream)
        shape = (binding.images, *self._engine.output_shape)
        return self._output.array(shape, np.dtype(np.float32)).copy()

    def close(self) -> None:
        """Release everything, also after a fault of the device; never raises."""
        while self._graphs:
            self._drop(self._graphs.popitem()[1])
        self._context = None
        self._resources.close()

    def _start(self, binding: _Binding) -> None:
        recorded = self._graphs.get(binding)
        if recorded is not None and recorded.graph is not None:
            self._graphs.move_to_end(binding)
            self._cuda.launch(recorded.graph, self._stream)
        elif recorded is not None:
            self._enqueue(recorded.context, binding)
        elif binding in self._seen:
            self._graphs[binding] = self._record(binding)
            if len(self._graphs) > KEPT_GRAPHS:
                self._drop(self._graphs.popitem(last=False)[1])
        else:
            self._remember(binding)
            self._bind(self._context, binding)
            self._enqueue(self._context, binding)

    def _remember(self, binding: _Binding) -> None:
        self._seen[binding] = None
        if len(self._seen) > _REMEMBERED_BINDINGS:
            self._seen.popitem(last=False)

    def _record(self, binding: _Binding) -> _Recorded:
        """Run it in a context of its own, and then record it there for the next time.

        TensorRT wants one run before the recording: it does what shapes ask for only once.
        """
        context, graphs = self._new_context(), list[int]()
        self._bind(context, binding)
        self._enqueue(context, binding)
        if not self._engine.can_be_recorded(context, self._stream):
            return _Recorded(context, None)
        try:
            with self._cuda.capture(self._stream, graphs):
                self._enqueue(context, binding)
        except CudaError as error:
            if not error.only_capture:
                raise
        except BackendError:
            # TensorRT says no more than that it could not enqueue; outside of a recording it could.
            pass
        return _Recorded(context, graphs[0] if graphs else None)

    def _drop(self, recorded: _Recorded) -> None:
        if recorded.graph is not None:
            self._cuda.free_graph(recorded.graph)
        recorded.context = None

    def _new_context(self) -> Any:
        return self._engine.new_context(self._scratch)

    def _bind(self, context: Any, binding: _Binding) -> None:
        self._engine.bind(context, binding.images, binding.address, self._output.device)

    def _enqueue(self, context: Any, binding: _Binding) -> None:
        images = binding.images
        if binding.uploads:
            self._input.upload(images * self._engine.image_bytes, self._stream)
        self._engine.enqueue(context, self._stream)
        self._output.download(images * self._engine.logits_bytes, self._stream)


@dataclass
class _Recorded:
    """A CUDA graph and the context it belongs to; no graph where the engine cannot be recorded."""

    context: Any
    graph: int | None


class _Transfer:
    """Memory that host and device both see the contents of.

    On a GPU of its own memory that is pinned host memory and device memory, copied over the
    stream. An integrated GPU, as Jetson's, reads the pinned memory itself: nothing is copied. Not
    managed memory, which on Jetson the host must not touch while any kernel runs (NVIDIA, "CUDA
    for Tegra", "Effective Usage of Unified Memory on Tegra").
    """

    def __init__(self, cuda: Cuda, size: int) -> None:
        self._cuda, self._size = cuda, size

    def __enter__(self) -> _Transfer:
        with ExitStack() as stack:
            self._host, self.device = self._cuda.allocate_pinned(self._size)
            stack.callback(self._cuda.free_pinned, self._host)
            if not self._cuda.integrated:
                self.device = self._cuda.allocate(self._size)
                stack.callback(self._cuda.free, self.device)
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """The beginning of the host's side as an array."""
        memory = memoryview((ctypes.c_uint8 * self._size).from_address(self._host))
        return np.ndarray(shape, dtype, memory)

    def upload(self, size: int, stream: int) -> None:
        """Enqueue the copy of the first `size` bytes to the device."""
        if not self._cuda.integrated:
            self._cuda.copy_to_device(self.device, self._host, size, stream)

    def download(self, size: int, stream: int) -> None:
        """Enqueue the copy of the first `size` bytes to the host."""
        if not self._cuda.integrated:
            self._cuda.copy_to_host(self._host, self.device, size, stream)
