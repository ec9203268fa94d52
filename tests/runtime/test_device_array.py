"""Arrays of other libraries, taken by DLPack and by the CUDA Array Interface.

numpy and torch write the capsules; that their memory is the host's and not a GPU's is all that is
made up.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from effnet_edge.errors import UsageError
from effnet_edge.runtime.device_array import LEGACY_STREAM, device_array

DTYPES = [np.uint8, np.int16, np.float16, np.float32, np.int64]
CUDA, CUDA_HOST, CUDA_MANAGED = 2, 3, 13


class OnGpu:
    """A real exporter's array that says it is on a GPU."""

    def __init__(self, array: Any, kind: int = CUDA) -> None:
        self.array, self.kind = array, kind
        self.asked_stream: int | None = None

    def __dlpack__(self, *, stream: int | None = None) -> object:
        self.asked_stream = stream
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0


@given(
    array=st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(max_dims=4, max_side=5))
    )
)
def test_dlpack_of_numpy(array: np.ndarray[Any, Any]) -> None:
    exporter = OnGpu(array)
    taken = device_array(exporter)
    assert taken is not None
    assert (taken.pointer, taken.shape, taken.dtype) == (
        array.ctypes.data,
        array.shape,
        array.dtype,
    )
    assert taken.producer == exporter.asked_stream == LEGACY_STREAM
    for start, stop in ((0, 1), (1, len(array)), (0, len(array))):
        part = taken[start:stop]
        assert part.pointer == array[start:].ctypes.data or start == len(array)
        assert part.shape == array[start:stop].shape


@pytest.fixture
def torch() -> Any:
    """Where it is installed: the runner does without."""
    return pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_dlpack_of_torch(torch: Any, dtype: str) -> None:
    tensor = torch.zeros(5, 8, 8, 3, dtype=getattr(torch, dtype))[2:]
    taken = device_array(OnGpu(tensor, CUDA_MANAGED))
    assert taken is not None
    assert (taken.pointer, taken.shape) == (tensor.data_ptr(), (3, 8, 8, 3))
    assert taken.dtype == tensor.numpy().dtype


def test_the_memory_is_held_as_long_as_the_array_and_no_longer() -> None:
    array = np.zeros((2, 3), np.uint8)
    before = sys.getrefcount(array)
    taken = device_array(OnGpu(array))
    part = taken[1:] if taken else None
    del taken
    gc.collect()
    assert sys.getrefcount(array) > before
    del part
    gc.collect()
    assert sys.getrefcount(array) == before


@pytest.mark.parametrize("value", [np.zeros(3), np.float32(1), [1], None, "x"])
def test_what_is_not_on_a_gpu(value: object) -> None:
    assert device_array(value) is None


def test_a_tensor_of_torch_that_is_not_on_a_gpu(torch: Any) -> None:
    assert device_array(torch.zeros(3)) is None


def test_pinned_host_memory_is_not_on_a_gpu() -> None:
    assert device_array(OnGpu(np.zeros(3), CUDA_HOST)) is None


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 8, 8, 3), np.uint8)[::2],
        np.zeros((4, 3, 8, 8), np.uint8).transpose(0, 2, 3, 1),
    ],
)
def test_gaps_are_refused(array: Any) -> None:
    with pytest.raises(UsageError, match="make it contiguous first"):
        device_array(OnGpu(array))


def test_gaps_in_a_tensor_of_torch_are_refused(torch: Any) -> None:
    with pytest.raises(UsageError, match="make it contiguous first"):
        device_array(OnGpu(torch.zeros(4, 8, 8, 3, dtype=torch.uint8)[:, :, ::2]))


def test_an_axis_of_one_may_have_any_stride() -> None:
    taken = device_array(OnGpu(np.zeros((8, 8, 3), np.uint8)[::2][None, :1]))
    assert taken is not None
    assert taken.shape == (1, 1, 8, 3)


def test_what_its_library_does_not_hand_out_is_one_line(torch: Any) -> None:
    with pytest.raises(UsageError, match="OnGpu is not handed out by DLPack: Can't export tensors"):
        device_array(OnGpu(torch.zeros(3, requires_grad=True)))


@pytest.mark.parametrize(("kind", "gpu"), [(CUDA, 0), (CUDA_MANAGED, None)])
def test_which_gpu_it_is_on(kind: int, gpu: int | None) -> None:
    taken = device_array(OnGpu(np.zeros((2, 3), np.uint8), kind))
    assert taken is not None
    assert (taken.gpu, taken[1:].gpu) == (gpu, gpu)


def test_types_that_numpy_has_no_name_for_are_refused(torch: Any) -> None:
    with pytest.raises(UsageError, match="give uint8 or float32 elements"):
        device_array(OnGpu(torch.zeros(3, dtype=torch.bfloat16)))


class WithInterface:
    def __init__(self, **interface: Any) -> None:
        self.__cuda_array_interface__ = interface


@pytest.mark.parametrize(
    ("stream", "producer"),
    [({"stream": None}, None), ({"stream": 2}, 2), ({"stream": 4711}, 4711), ({}, LEGACY_STREAM)],
)
def test_the_cuda_array_interface(stream: dict[str, int | None], producer: int | None) -> None:
    value = WithInterface(
        version=3, shape=(2, 8, 8, 3), typestr="|u1", data=(4096, True), strides=None, **stream
    )
    taken = device_array(value)
    assert taken is not None
    assert (taken.pointer, taken.shape, taken.dtype) == (4096, (2, 8, 8, 3), np.uint8)
    assert taken.producer == producer
    assert taken.owner is value
    assert taken[1:].pointer == 4096 + 8 * 8 * 3
