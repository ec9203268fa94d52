"""Arrays that are on a GPU already, taken where they lie: `__cuda_array_interface__` and DLPack."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from effnet_edge.errors import UsageError, first_line

# The legacy default stream, in both protocols and in the CUDA runtime (cudaStreamLegacy).
LEGACY_STREAM = 1

# DLDeviceType of the DLPack specification: CUDA memory, and CUDA managed memory, of every GPU.
_CUDA, _CUDA_MANAGED = 2, 13
# DLDataTypeCode of the DLPack specification.
_TYPE_KINDS = {0: "i", 1: "u", 2: "f"}
_DLPACK_NAME = b"dltensor"
_DLPACK_USED_NAME = b"used_dltensor"


@dataclass(frozen=True)
class DeviceArray:
    """A C-contiguous array in the memory of a GPU.

    Attributes:
        pointer: its address on the device.
        shape: its sizes.
        dtype: of its elements.
        producer: the stream that writes it, a `cudaStream_t` as an integer; None if it is written.
        owner: keeps the memory alive.
        gpu: the number of the one whose memory it is; None where that is not told, or of all.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    producer: int | None
    owner: object = field(repr=False)
    gpu: int | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DeviceArray:
        """Neighbouring rows, in the same memory."""
        start, stop, _ = rows.indices(len(self))
        row_bytes = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        return replace(
            self, pointer=self.pointer + start * row_bytes, shape=(stop - start, *self.shape[1:])
        )


@runtime_checkable
class ExportsDeviceArray(Protocol):
    """An array of another library that says where on the GPU it lies, by DLPack."""

    def __dlpack__(self, *, stream: int | None = None) -> object: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...


def device_array(value: object) -> DeviceArray | None:
    """`value` as an array on a GPU, without a copy; None if it is none.

    Sources: the CUDA Array Interface, version 3 (Numba's documentation), and the Python
    specification of DLPack (data-apis.org, "Python Specification for DLPack").

    Raises:
        UsageError: it is on a GPU, and not contiguous, or its library does not hand it out.
    """
    if isinstance(value, np.ndarray | np.generic):
        return None
    if isinstance(value, ExportsDeviceArray):
        kind, number = value.__dlpack_device__()
        if kind in (_CUDA, _CUDA_MANAGED):
            return replace(_handed_out(value), gpu=number if kind == _CUDA else None)
    interface = getattr(value, "__cuda_array_interface__", None)
    return None if interface is None else _from_interface(interface, value)


def _handed_out(value: ExportsDeviceArray) -> DeviceArray:
    try:
        # The producer makes its data ready on the stream that it is given.
        capsule = value.__dlpack__(stream=LEGACY_STREAM)
    except Exception as error:  # for example as it takes part in a gradient
        raise UsageError(
            f"{type(value).__name__} is not handed out by DLPack: {first_line(error)}"
        ) from error
    return _from_capsule(capsule, LEGACY_STREAM)


def _from_interface(interface: dict[str, Any], owner: object) -> DeviceArray:
    dtype, shape = np.dtype(interface["typestr"]), tuple(int(n) for n in interface["shape"])
    strides = interface.get("strides")
    if strides is not None:
        _refuse_gaps(shape, tuple(stride // dtype.itemsize for stride in strides))
    # Before version 3 there was no stream to tell: the default stream is what such code works on.
    producer = interface.get("stream", LEGACY_STREAM)
    return DeviceArray(int(interface["data"][0]), shape, dtype, producer, owner)


class _DlTensor(ctypes.Structure):
    """DLTensor of dlpack.h, after its device and type have been laid out flat."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("type_code", ctypes.c_uint8),
        ("type_bits", ctypes.c_uint8),
        ("type_lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _DlManagedTensor(ctypes.Structure):
    """DLManagedTensor of dlpack.h."""

    _fields_ = (
        ("tensor", _DlTensor),
        ("manager_context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    )


class _Capsule:
    """A DLPack capsule that has been taken over: released when nothing refers to it any more."""

    def __init__(self, capsule: object) -> None:
        self._address = _capsule_call("PyCapsule_GetPointer", ctypes.c_void_p)(
            capsule, _DLPACK_NAME
        )
        managed = _DlManagedTensor.from_address(self._address)
        self.tensor: _DlTensor = managed.tensor
        _capsule_call("PyCapsule_SetName", ctypes.c_int)(capsule, _DLPACK_USED_NAME)
        self._managed = managed

    def __del__(self) -> None:
        # There is none if it was not taken over: then the capsule releases it itself.
        managed = getattr(self, "_managed", None)
        if managed is not None and managed.deleter:
            managed.deleter(self._address)


def _capsule_call(name: str, answer: Any) -> Any:
    function = ctypes.pythonapi[name]
    function.restype, function.argtypes = answer, (ctypes.py_object, ctypes.c_char_p)
    return function


def _from_capsule(capsule: object, producer: int | None) -> DeviceArray:
    owner = _Capsule(capsule)
    tensor = owner.tensor
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    if tensor.strides:
        _refuse_gaps(shape, tuple(tensor.strides[axis] for axis in range(tensor.ndim)))
    pointer = (tensor.data or 0) + tensor.byte_offset
    return DeviceArray(pointer, shape, _element_type(tensor), producer, owner)


def _element_type(tensor: _DlTensor) -> np.dtype[Any]:
    kind = _TYPE_KINDS.get(tensor.type_code)
    if kind is None or tensor.type_lanes != 1:
        raise UsageError(
            f"an array of DLPack type {tensor.type_code}: give uint8 or float32 elements"
        )
    return np.dtype(f"{kind}{tensor.type_bits // 8}")


def _refuse_gaps(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """`strides` count elements; an axis of one element may have any."""
    packed = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != packed:
            raise UsageError(
                f"an array {shape} on the GPU with strides {strides}: make it contiguous first"
            )
        packed *= max(size, 1)
