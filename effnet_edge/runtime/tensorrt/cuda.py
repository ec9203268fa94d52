"""The part of the CUDA runtime that the runner needs; every failure is a `CudaError`.

Bindings: cuda-python's `cuda.bindings.runtime`, which brings the CUDA runtime with it and needs
nothing but NVIDIA's driver.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator

BINDINGS_HINT = "pip install 'cuda-bindings>=12.8' (below 13 on a Jetson with JetPack 6)"

# Errors that end a capture and nothing else: cudaErrorStreamCaptureUnsupported (900) to
# cudaErrorCapturedEvent (907) of the CUDA runtime API, "Data types used by CUDA Runtime".
_CAPTURE_ERRORS = range(900, 908)


class CudaError(BackendError):
    """A call of the CUDA runtime failed; `code` is its `cudaError_t`."""

    def __init__(self, what: str, code: int, message: str) -> None:
        super().__init__(f"CUDA cannot {what}: {message} (error {code})")
        self.code = code

    @property
    def only_capture(self) -> bool:
        """Whether the work itself is fine and merely cannot be recorded as a CUDA graph."""
        return self.code in _CAPTURE_ERRORS


class Cuda:
    """The CUDA runtime on one device. Pointers, streams and graphs are integers.

    What frees something never raises: after a fault of the device every call fails, and what is
    left to do is to let go.
    """

    def __init__(self, device: int = 0) -> None:
        """Make `device` this thread's.

        Raises:
            BackendError: the bindings are not installed.
            CudaError: there is no such device, or the driver is too old.
        """
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise BackendError(f"cuda-python is not installed: {BINDINGS_HINT}") from error
        self._runtime: Any = runtime
        self.device = device
        self.use_here()
        attribute = runtime.cudaDeviceAttr.cudaDevAttrIntegrated
        self.integrated = bool(
            self._call("ask for the GPU", runtime.cudaDeviceGetAttribute(attribute, device))
        )

    def use_here(self) -> None:
        """Make the device the calling thread's: CUDA keeps it for each thread."""
        self._call(f"use GPU {self.device}", self._runtime.cudaSetDevice(self.device))

    def new_stream(self) -> int:
        """A stream that does not wait for the default stream."""
        flags = self._runtime.cudaStreamNonBlocking
        return int(self._call("make a stream", self._runtime.cudaStreamCreateWithFlags(flags)))

    def free_stream(self, stream: int) -> None:
        """Destroy it."""
        self._runtime.cudaStreamDestroy(stream)

    def allocate(self, size: int) -> int:
        """Device memory of `size` bytes, aligned to 256."""
        what = f"allocate {size} bytes on the GPU"
        return int(self._call(what, self._runtime.cudaMalloc(size)))

    def free(self, pointer: int) -> None:
        """Free device memory."""
        self._runtime.cudaFree(pointer)

    def allocate_pinned(self, size: int) -> tuple[int, int]:
        """Page-locked host memory of `size` bytes: its address for the host and for the device."""
        what = f"pin {size} bytes of host memory"
        flags = self._runtime.cudaHostAllocMapped
        host = int(self._call(what, self._runtime.cudaHostAlloc(size, flags)))
        try:
            return host, int(self._call(what, self._runtime.cudaHostGetDevicePointer(host, 0)))
        except CudaError:
            self.free_pinned(host)
            raise

    def free_pinned(self, host: int) -> None:
        """Free page-locked host memory."""
        self._runtime.cudaFreeHost(host)

    def copy_to_device(self, device: int, host: int, size: int, stream: int) -> None:
        """Enqueue a copy of `size` bytes from page-locked host memory."""
        self._copy(device, host, size, self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice, stream)

    def copy_to_host(self, host: int, device: int, size: int, stream: int) -> None:
        """Enqueue a copy of `size` bytes to page-locked host memory."""
        self._copy(host, device, size, self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost, stream)

    def wait_for(self, stream: int) -> None:
        """Wait until everything in the stream is done; raises what went wrong on the device."""
        self._call("finish the work", self._runtime.cudaStreamSynchronize(stream))

    def order_after(self, stream: int, producer: int) -> None:
        """Let `stream` go on only when what is in the stream `producer` now is done."""
        flags = self._runtime.cudaEventDisableTiming
        event = self._call("make an event", self._runtime.cudaEventCreateWithFlags(flags))
        try:
            self._call(
                "follow the stream of the input", self._runtime.cudaEventRecord(event, producer)
            )
            self._call(
                "follow the stream of the input",
                self._runtime.cudaStreamWaitEvent(stream, event, 0),
            )
        finally:
            self._runtime.cudaEventDestroy(event)

    @contextmanager
    def capture(self, stream: int, graphs: list[int]) -> Iterator[None]:
        """Record what the block enqueues, instead of running it; the CUDA graph goes to `graphs`.

        Raises:
            CudaError: with `only_capture`, if something in the block cannot be recorded.
        """
        runtime = self._runtime
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("record a CUDA graph", runtime.cudaStreamBeginCapture(stream, mode))
        try:
            yield
        except BaseException:
            _, graph = runtime.cudaStreamEndCapture(stream)
            if graph is not None and int(graph):
                runtime.cudaGraphDestroy(graph)
            runtime.cudaGetLastError()
            raise
        graph = self._call("record a CUDA graph", runtime.cudaStreamEndCapture(stream))
        try:
            graphs.append(int(self._call("make a graph", runtime.cudaGraphInstantiate(graph, 0))))
        finally:
            runtime.cudaGraphDestroy(graph)

    def launch(self, graph: int, stream: int) -> None:
        """Enqueue all that a CUDA graph recorded."""
        self._call("launch the CUDA graph", self._runtime.cudaGraphLaunch(graph, stream))

    def free_graph(self, graph: int) -> None:
        """Destroy it."""
        self._runtime.cudaGraphExecDestroy(graph)

    def _copy(self, target: int, source: int, size: int, kind: Any, stream: int) -> None:
        status = self._runtime.cudaMemcpyAsync(target, source, size, kind, stream)
        self._call("copy between host and GPU", status)

    def _call(self, what: str, answer: tuple[Any, ...]) -> Any:
        status, *values = answer
        if int(status) != 0:
            # What fails at once stays behind as the thread's last error, for somebody else to find.
            self._runtime.cudaGetLastError()
            _, message = self._runtime.cudaGetErrorString(status)
            raise CudaError(what, int(status), message.decode(errors="replace"))
        return values[0] if values else None
