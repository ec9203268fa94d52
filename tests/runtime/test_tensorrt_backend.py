"""The bookkeeping of the TensorRT runner on a scripted CUDA and TensorRT.

What is allocated, copied, recorded and released, and what is said when something fails. No number
of a GPU is checked here.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fake_cuda import CAPTURE_UNSUPPORTED, ILLEGAL_ADDRESS, OUT_OF_MEMORY
from gpu_or_fake import fake_nvidia
from tiny_bundles import (
    CLASSES,
    tiny_model,
    write_bundle,
)

from effnet_edge.bundle import BatchRange
from effnet_edge.errors import BackendError
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.tensorrt.lane import KEPT_GRAPHS

if TYPE_CHECKING:
    from pathlib import Path

from tensorrt_runs import Fake, OnDevice, assert_right, pixels


@pytest.fixture
def bundle(tmp_path: Path, fake: Fake) -> Path:  # noqa: ARG001
    return write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N"))


# Allocation and release


@pytest.mark.parametrize("integrated", [False, True])
def test_everything_is_released_and_nothing_is_allocated_after_loading(
    tmp_path: Path, integrated: bool
) -> None:
    with fake_nvidia(integrated=integrated) as (fake_cuda, _):
        path = write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N"))
        with EngineRunner.load(path) as run:
            allocated = sorted(fake_cuda.alive.values())
            for count in (1, 3, 8, 3, 20, 3):
                assert_right(run.infer(pixels(count)), pixels(count))
            kept = [kind for kind in fake_cuda.alive.values() if kind != "executable graph"]
            assert sorted(kept) == allocated
            assert ("cudaMemcpyAsync" in fake_cuda.calls) == (not integrated)
            pinned = 2 if integrated else 4
            assert len([kind for kind in allocated if "memory" in kind]) == pinned + 1
        assert fake_cuda.alive == {}


def test_at_most_four_lanes_are_made_and_all_are_released(bundle: Path, fake: Fake) -> None:
    with EngineRunner.load(bundle, throughput=True) as run:
        with ThreadPoolExecutor(12) as pool:
            batches = [pixels(1 + seed % 5, seed) for seed in range(60)]
            for batch, logits in zip(batches, pool.map(run.infer, batches), strict=True):
                assert_right(logits, batch)
        assert 1 <= list(fake[0].alive.values()).count("stream") <= 4
        futures = [run.submit(batch) for batch in batches]
        for batch, future in zip(batches, futures, strict=True):
            assert_right(future.result(60), batch)
    assert fake[0].alive == {}


@pytest.mark.parametrize(
    "function",
    [
        "cudaSetDevice",
        "cudaDeviceGetAttribute",
        "cudaStreamCreateWithFlags",
        "cudaMalloc",
        "cudaHostAlloc",
        "cudaHostGetDevicePointer",
    ],
)
def test_loading_that_fails_half_way_leaves_nothing_behind(
    bundle: Path, fake: Fake, function: str
) -> None:
    fake[0].failing[function] = OUT_OF_MEMORY
    with pytest.raises(BackendError, match=r"made-up failure 2 \(error 2\)") as caught:
        EngineRunner.load(bundle)
    assert "\n" not in str(caught.value)
    assert fake[0].alive == {}


# CUDA graphs


def test_a_shape_that_comes_again_is_recorded_once_and_then_launched(
    bundle: Path, fake: Fake
) -> None:
    fake_cuda, tensorrt = fake
    with EngineRunner.load(bundle) as run:
        for seed in range(6):
            assert_right(run.infer(pixels(2, seed)), pixels(2, seed))
        assert fake_cuda.calls.count("cudaStreamBeginCapture") == 1
        assert fake_cuda.calls.count("cudaGraphLaunch") == 4
        assert tensorrt.contexts == 2
        assert_right(run.infer(pixels(5)), pixels(5))
        assert fake_cuda.calls.count("cudaGraphLaunch") == 4
        assert_right(run.infer(pixels(2)), pixels(2))
        assert fake_cuda.calls.count("cudaGraphLaunch") == 5
    assert fake_cuda.alive == {}


def test_the_graphs_that_were_not_used_longest_are_let_go(bundle: Path, fake: Fake) -> None:
    fake_cuda, _ = fake
    cameras = [OnDevice(fake_cuda, pixels(1, seed)) for seed in range(KEPT_GRAPHS + 3)]
    with EngineRunner.load(bundle) as run:
        for _ in range(3):
            for camera in cameras:
                assert_right(run.infer(camera), camera.batch)
        assert list(fake_cuda.alive.values()).count("executable graph") == KEPT_GRAPHS


@pytest.mark.parametrize("by_tensorrt", [True, False])
def test_an_engine_that_cannot_be_recorded_runs_without_graphs(
    bundle: Path, fake: Fake, by_tensorrt: bool
) -> None:
    fake_cuda, tensorrt = fake
    tensorrt.capturable = not by_tensorrt
    if not by_tensorrt:
        fake_cuda.failing["cudaGraphInstantiate"] = CAPTURE_UNSUPPORTED
    with EngineRunner.load(bundle) as run:
        for seed in range(5):
            assert_right(run.infer(pixels(2, seed)), pixels(2, seed))
        assert "cudaGraphLaunch" not in fake_cuda.calls
    assert fake_cuda.alive == {}


# Faults


def test_a_fault_of_the_device_is_an_exception_for_everyone_and_the_end_of_the_lane(
    tmp_path: Path, fake: Fake
) -> None:
    fake_cuda, _ = fake
    path = write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N"), faulty=True)
    with EngineRunner.load(path) as run:
        for _ in range(3):
            with pytest.raises(BackendError, match="Test GPU failed on a batch") as caught:
                run.infer(pixels(1))
            assert f"error {ILLEGAL_ADDRESS}" in str(caught.value)
        futures = [run.submit(pixels(1)) for _ in range(10)]
        assert all(isinstance(future.exception(60), BackendError) for future in futures)
        assert fake_cuda.alive == {}


def test_a_device_that_stays_broken_neither_hangs_nor_stops_closing(
    bundle: Path, fake: Fake
) -> None:
    fake_cuda, _ = fake
    run = EngineRunner.load(bundle)
    run.infer(pixels(1))
    for function in ("cudaStreamSynchronize", "cudaMalloc", "cudaFree", "cudaStreamDestroy"):
        fake_cuda.failing[function] = ILLEGAL_ADDRESS
    threads = [threading.Thread(target=_expect_failure, args=(run,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    closing = threading.Thread(target=run.close)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()


def _expect_failure(run: EngineRunner) -> None:
    for _ in range(3):
        with pytest.raises(BackendError):
            run.infer(pixels(1))


@pytest.mark.parametrize(
    ("batch", "images", "says"),
    [
        (BatchRange(1, 8, 9), 9, "the engine takes 8 images at most, not 9"),
        (BatchRange(1, 4, 4), 2, r"TensorRT 10.3.0.30 refuses a batch of 2: .*out of the profile"),
    ],
)
def test_a_batch_that_the_engine_refuses_leaves_the_runner_usable(
    tmp_path: Path, fake: Fake, batch: BatchRange, images: int, says: str
) -> None:
    model = tiny_model(batch=4 if batch.maximum == 4 else "N")
    path = write_bundle(tmp_path / "b", "tensorrt", model, batch=batch)
    with EngineRunner.load(path) as run:
        with pytest.raises(BackendError, match=says):
            run.infer(pixels(images))
        assert_right(run.infer(pixels(4)), pixels(4))
    assert fake[0].alive == {}


def test_without_the_bindings_the_error_names_them(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
    with pytest.raises(BackendError, match=r"cuda-python is not installed: pip install 'cuda-bind"):
        EngineRunner.load(bundle)


def test_logits_have_memory_of_their_own(bundle: Path) -> None:
    with EngineRunner.load(bundle) as run:
        first = run.infer(pixels(1))
        kept = first.copy()
        run.infer(pixels(1, seed=1))
        np.testing.assert_array_equal(first, kept)
        assert first.shape == (1, CLASSES)
