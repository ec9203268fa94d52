"""A scripted CUDA runtime for machines without a GPU.

Memory is the process's own; work in a stream runs when somebody waits for the stream, so that what
is read too early is seen. Misuse that a GPU punishes with a fault or with silence is an error here:
unknown addresses, a context that is changed after its graph was recorded, memory freed twice.
"""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


MEMORY = 1 << 30


ILLEGAL_ADDRESS, CAPTURE_UNSUPPORTED, OUT_OF_MEMORY, NO_DEVICE = 700, 900, 2, 100


class DeviceFaultError(Exception):
    """What work in a stream raises to make the device fail with that error."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class FakeCuda:
    """The functions of `cuda.bindings.runtime` that the runner calls.

    Attributes:
        integrated: whether the device shares the host's memory.
        failing: function name → the code that every call of it gives.
        calls: the names of all functions called.
        alive: what is allocated and not yet freed, by kind.
        devices: how many there are.
        device: the number of the one in use.
    """

    integrated: bool = False
    failing: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    alive: dict[int, str] = field(default_factory=dict)
    devices: int = 1
    device: int = 0
    _memory: dict[int, Any] = field(default_factory=dict)
    _queues: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    _captures: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    _graphs: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    _handles: Any = field(default_factory=lambda: itertools.count(1000))
    cudaStreamNonBlocking = 1
    cudaHostAllocMapped = 2
    cudaEventDisableTiming = 2
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrIntegrated=18)
    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDefault=4
    )
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __getattribute__(self, name: str) -> Any:
        attribute = object.__getattribute__(self, name)
        if not name.startswith("cuda") or not callable(attribute):
            return attribute
        self.calls.append(name)
        code = self.failing.get(name)
        return attribute if code is None else lambda *_: (code, None)

    def memory_at(self, address: int, size: int) -> Any:
        """The bytes of allocated memory; a fault for any other address."""
        for start, block in self._memory.items():
            if start <= address and address + size <= start + len(block):
                return (ctypes.c_uint8 * size).from_address(address)
        raise DeviceFaultError(ILLEGAL_ADDRESS)

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        self._captures.get(stream, self._queues[stream]).append(work)

    def is_capturing(self, stream: int) -> bool:
        return stream in self._captures

    def cudaSetDevice(self, device: int) -> Any:
        if device >= self.devices:
            return (NO_DEVICE,)
        self.device = device
        return (0,)

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> Any:
        assert attribute == 18
        assert device < self.devices
        return 0, int(self.integrated)

    def cudaGetErrorString(self, code: int) -> Any:
        return 0, f"made-up failure {code}".encode()

    def cudaGetLastError(self) -> Any:
        return (0,)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        assert flags == self.cudaStreamNonBlocking
        handle = self._new("stream")
        self._queues[handle] = []
        return 0, handle

    def cudaStreamDestroy(self, stream: int) -> Any:
        self._gone(stream, "stream")
        del self._queues[stream]
        return (0,)

    def cudaMalloc(self, size: int) -> Any:
        return 0, self._allocate(size, "device memory")

    def cudaFree(self, pointer: int) -> Any:
        self._release(pointer, "device memory")
        return (0,)

    def cudaMemGetInfo(self) -> Any:
        used = sum(
            len(self._memory[address])
            for address, kind in self.alive.items()
            if kind == "device memory"
        )
        return 0, MEMORY - used, MEMORY

    def cudaHostAlloc(self, size: int, flags: int) -> Any:
        assert flags == self.cudaHostAllocMapped
        return 0, self._allocate(size, "pinned memory")

    def cudaHostGetDevicePointer(self, host: int, flags: int) -> Any:
        assert self.alive[host] == "pinned memory"
        assert flags == 0
        return 0, host

    def cudaFreeHost(self, pointer: int) -> Any:
        self._release(pointer, "pinned memory")
        return (0,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> Any:
        assert kind == 4 or (kind in (1, 2) and not self.integrated)

        def copy() -> None:
            ctypes.memmove(self.memory_at(target, size), self.memory_at(source, size), size)

        self.enqueue(stream, copy)
        return (0,)

    def cudaStreamIsCapturing(self, stream: int) -> Any:
        return 0, int(self.is_capturing(stream))

    def cudaStreamSynchronize(self, stream: int) -> Any:
        assert not self.is_capturing(stream)
        queue, self._queues[stream] = self._queues[stream], []
        try:
            for work in queue:
                work()
        except DeviceFaultError as fault:
            return (fault.code,)
        return (0,)

    def cudaEventCreateWithFlags(self, _flags: int) -> Any:
        return 0, self._new("event")

    def cudaEventDestroy(self, event: int) -> Any:
        self._gone(event, "event")
        return (0,)

    def cudaEventRecord(self, event: int, _stream: int) -> Any:
        assert self.alive[event] == "event"
        return (0,)

    def cudaStreamWaitEvent(self, stream: int, event: int, _flags: int) -> Any:
        assert (self.alive[stream], self.alive[event]) == ("stream", "event")
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, _mode: int) -> Any:
        self._captures[stream] = []
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> Any:
        graph = self._new("graph")
        self._graphs[graph] = self._captures.pop(stream)
        return 0, graph

    def cudaGraphInstantiate(self, graph: int, _flags: int) -> Any:
        executable = self._new("executable graph")
        self._graphs[executable] = self._graphs[graph]
        return 0, executable

    def cudaGraphDestroy(self, graph: int) -> Any:
        self._gone(graph, "graph")
        return (0,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> Any:
        assert self.alive[graph] == "executable graph"
        for work in self._graphs[graph]:
            self.enqueue(stream, work)
        return (0,)

    def cudaGraphExecDestroy(self, graph: int) -> Any:
        self._gone(graph, "executable graph")
        return (0,)

    def _new(self, kind: str) -> int:
        handle = next(self._handles)
        self.alive[handle] = kind
        return int(handle)

    def _gone(self, handle: int, kind: str) -> None:
        assert self.alive.pop(handle) == kind

    def _allocate(self, size: int, kind: str) -> int:
        block = (ctypes.c_uint8 * size)()
        address = ctypes.addressof(block)
        self._memory[address] = block
        self.alive[address] = kind
        return address

    def _release(self, pointer: int, kind: str) -> None:
        self._gone(pointer, kind)
        del self._memory[pointer]
