"""TensorRT and a GPU for tests: the real ones where they are, a fake for bookkeeping elsewhere."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from fake_cuda import FakeCuda
from fake_tensorrt import GPU, FakeTensorRt, FakeTensorRtRtx

from effnet_edge.runtime.tensorrt import build, fitting, gpu
from effnet_edge.runtime.tensorrt.fitting import can_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet_edge.machine import Gpu

REAL = can_run("tensorrt")
"""Whether this machine runs TensorRT engines."""


def runs_for_real() -> bool:
    """Whether TensorRT bundles run on a GPU now, and not on the fake."""
    return REAL and not isinstance(sys.modules.get("tensorrt"), FakeTensorRt)


@contextmanager
def gpu_or_fake() -> Iterator[None]:
    """Within: TensorRT bundles run, for real or not."""
    if REAL:
        yield
    else:
        with fake_nvidia():
            yield


@contextmanager
def fake_nvidia(
    *, integrated: bool = False, gpu_here: Gpu = GPU
) -> Iterator[tuple[FakeCuda, FakeTensorRt]]:
    """Within: the libraries and `cuda.bindings.runtime` are fakes, and so is the GPU."""
    cuda = FakeCuda(integrated=integrated)
    tensorrt = FakeTensorRt(cuda)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt", tensorrt)
        patch.setitem(sys.modules, "tensorrt_rtx", FakeTensorRtRtx(cuda))
        put_runtime(patch, cuda)
        put_gpu(patch, gpu_here)
        yield cuda, tensorrt


def put_runtime(patch: pytest.MonkeyPatch, cuda: FakeCuda) -> None:
    """Let it be `cuda.bindings.runtime`."""
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = cuda  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    patch.setitem(sys.modules, "cuda.bindings", bindings)
    patch.setitem(sys.modules, "cuda.bindings.runtime", cuda)


def put_gpu(patch: pytest.MonkeyPatch, gpu_here: Gpu) -> None:
    """Let the runner find this GPU, and no other."""
    for module in (gpu, build, fitting):
        patch.setattr(module, "find_gpu", lambda number=0: gpu_here if number == 0 else None)
