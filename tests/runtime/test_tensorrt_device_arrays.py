"""Arrays that already lie on the GPU, on a scripted CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_bundles import (
    tiny_model,
    write_bundle,
)

from effnet_edge.errors import UsageError
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from pathlib import Path


from tensorrt_runs import Fake, OnDevice, assert_right, pixels


@pytest.fixture
def bundle(tmp_path: Path, fake: Fake) -> Path:  # noqa: ARG001
    return write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N"))


# Arrays on the GPU


def test_an_array_on_the_gpu_is_read_where_it_lies(bundle: Path, fake: Fake) -> None:
    fake_cuda, _ = fake
    camera = OnDevice(fake_cuda, pixels(3))
    with EngineRunner.load(bundle) as run:
        for seed in range(5):
            camera.write(pixels(3, seed))
            fake_cuda.calls.clear()
            assert_right(run.infer(camera), pixels(3, seed))
            copies = fake_cuda.calls.count("cudaMemcpyAsync")
            assert copies <= 2
        assert "cudaGraphLaunch" in fake_cuda.calls
        assert_right(run.submit(camera).result(60), pixels(3, 4))


def test_a_large_array_on_the_gpu_is_split(bundle: Path, fake: Fake) -> None:
    with EngineRunner.load(bundle) as run:
        assert_right(run.infer(OnDevice(fake[0], pixels(19))), pixels(19))


def test_the_producers_stream_is_waited_for(bundle: Path, fake: Fake) -> None:
    fake_cuda, _ = fake
    with EngineRunner.load(bundle) as run:
        run.infer(OnDevice(fake_cuda, pixels(1)))
        assert "cudaStreamWaitEvent" not in fake_cuda.calls
        run.infer(OnDevice(fake_cuda, pixels(1), stream=7))
        assert fake_cuda.calls.count("cudaStreamWaitEvent") == 1
        assert "event" not in fake_cuda.alive.values()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"typestr": "<f4"}, "takes uint8 (N, 8, 8, 3) on the GPU, got float32 (1, 8, 8, 3)"),
        ({"shape": (8, 8, 3)}, "got uint8 (8, 8, 3)"),
        ({"strides": (384, 48, 6, 2)}, "make it contiguous first"),
    ],
)
def test_an_array_on_the_gpu_that_does_not_fit_is_one_line(
    bundle: Path, fake: Fake, changes: dict[str, Any], says: str
) -> None:
    with EngineRunner.load(bundle) as run:
        for call in (run.infer, run.submit):
            with pytest.raises(UsageError) as caught:
                call(OnDevice(fake[0], pixels(1), **changes))
            assert says in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_static_batch_on_the_gpu_must_be_whole(tmp_path: Path, fake: Fake) -> None:
    path = write_bundle(tmp_path / "four", "tensorrt", tiny_model(batch=4))
    with EngineRunner.load(path) as run:
        assert_right(run.infer(OnDevice(fake[0], pixels(8))), pixels(8))
        with pytest.raises(UsageError, match="takes 4 to 4 images at once on the GPU, got 6"):
            run.infer(OnDevice(fake[0], pixels(6)))


class OnNumberedGpu:
    """An array that tells by DLPack which GPU it is on; `memory` is where that is."""

    def __init__(self, memory: Any, number: int) -> None:
        self.memory, self.number = memory, number

    def __dlpack__(self, *, stream: int | None = None) -> object:
        del stream
        return self.memory.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.number


def test_an_array_on_another_gpu_is_refused(bundle: Path, fake: Fake) -> None:
    address = OnDevice(fake[0], pixels(1)).address
    memory = np.ctypeslib.as_array(fake[0].memory_at(address, pixels(1).nbytes))
    memory = memory.reshape(pixels(1).shape)
    with EngineRunner.load(bundle) as run:
        assert_right(run.infer(OnNumberedGpu(memory, 0)), pixels(1))
        calls = list(fake[0].calls)
        with pytest.raises(UsageError, match="is on GPU 1, and the engine on GPU 0: copy it there"):
            run.infer(OnNumberedGpu(memory, 1))
        assert fake[0].calls == calls, "the GPU is not asked"


def test_other_backends_refuse_an_array_on_the_gpu(tmp_path: Path, fake: Fake) -> None:
    path = write_bundle(tmp_path / "cpu", "openvino", tiny_model())
    with EngineRunner.load(path) as run, pytest.raises(UsageError, match="got OnDevice"):
        run.infer(OnDevice(fake[0], pixels(1)))
