"""The runner's bookkeeping on a GPU's own CUDA runtime, where there is one; TensorRT is scripted.

Without a GPU the same tests run on the scripted CUDA, and those that need a GPU are skipped.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import leaks
import numpy as np
import pytest
import torch
from fake_tensorrt_on_cuda import checked, scripted_on_cuda
from tensorrt_runs import assert_right, pixels
from tiny_bundles import PREPROCESSING, tiny_model, write_bundle

from effnet_edge.errors import BackendError
from effnet_edge.machine import find_gpu
from effnet_edge.pictures.image import normalize
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.tensorrt.cuda import Cuda

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fake_tensorrt_on_cuda import FakeTensorRtOnCuda

needs_gpu = pytest.mark.skipif(find_gpu() is None, reason="there is no GPU here")


@pytest.fixture
def library() -> Iterator[FakeTensorRtOnCuda]:
    with scripted_on_cuda() as scripted:
        yield scripted


@pytest.fixture
def bundle(tmp_path: Path, library: FakeTensorRtOnCuda) -> Path:  # noqa: ARG001
    return write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N"))


@pytest.fixture
def run(bundle: Path) -> Iterator[EngineRunner]:
    with EngineRunner.load(bundle) as runner:
        yield runner


@pytest.mark.parametrize("integrated", [False, True])
def test_logits_of_many_sizes_and_orders(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, integrated: bool
) -> None:
    """Also as on an integrated GPU: the device then reads and writes the host's pinned memory."""
    begin = Cuda.__init__

    def begin_as_one(self: Cuda, device: int = 0) -> None:
        begin(self, device)
        self.integrated = integrated

    monkeypatch.setattr(Cuda, "__init__", begin_as_one)
    with EngineRunner.load(bundle) as run:
        for seed, count in enumerate([1, 3, 8, 3, 20, 1, 3, 3, 8, 8, 1, 0, 5, 3]):
            if count:
                assert_right(run.infer(pixels(count, seed)), pixels(count, seed))
            else:
                assert run.infer(pixels(0)).shape[0] == 0


def test_a_size_that_comes_again_is_recorded_once_and_then_launched(
    run: EngineRunner, library: FakeTensorRtOnCuda
) -> None:
    for seed in range(12):
        assert_right(run.infer(pixels(2, seed)), pixels(2, seed))
    assert library.executions == 3, "the first, the one before the recording, and the recording"


def test_more_sizes_and_addresses_than_graphs_are_kept(run: EngineRunner) -> None:
    for seed in range(40):
        batch = pixels(1 + seed % 8, seed)
        assert_right(run.infer(batch), batch)


def test_many_threads_and_futures(bundle: Path) -> None:
    batches = [pixels(1 + seed % 5, seed) for seed in range(60)]
    with EngineRunner.load(bundle, throughput=True) as run, ThreadPoolExecutor(12) as pool:
        for batch, logits in zip(batches, pool.map(run.infer, batches), strict=True):
            assert_right(logits, batch)
        futures = [run.submit(batch) for batch in batches]
        for batch, future in zip(batches, futures, strict=True):
            assert_right(future.result(60), batch)


@needs_gpu
def test_a_tensor_of_torch_in_whatever_stream_it_is_made(run: EngineRunner) -> None:
    """It is still being written when the runner gets it."""
    tensor = torch.zeros((4, 8, 8, 3), dtype=torch.uint8, device="cuda")
    hosts = [torch.from_numpy(pixels(4, seed)).pin_memory() for seed in range(8)]
    side = torch.cuda.Stream()
    for stream in (torch.cuda.default_stream(), side, side, side):
        for seed, host in enumerate(hosts):
            with torch.cuda.stream(stream):
                torch.cuda._sleep(20_000_000)
                tensor.copy_(host, non_blocking=True)
                assert_right(run.infer(tensor), pixels(4, seed))


@needs_gpu
def test_an_array_of_cupy_in_whatever_stream_it_is_made(run: EngineRunner) -> None:
    cupy = pytest.importorskip("cupy")
    for stream in (cupy.cuda.Stream.null, cupy.cuda.Stream(non_blocking=True)):
        with stream:
            for seed in range(6):
                torch.cuda._sleep(20_000_000)
                array = cupy.asarray(pixels(3, seed)) + cupy.uint8(0)
                assert_right(run.infer(array), pixels(3, seed))


@needs_gpu
def test_rows_floats_and_large_batches_on_the_gpu(tmp_path: Path, run: EngineRunner) -> None:
    tensor = torch.from_numpy(pixels(21)).cuda()
    assert_right(run.infer(tensor), pixels(21))
    assert_right(run.infer(tensor[5:8]), pixels(21)[5:8])
    path = write_bundle(tmp_path / "float", "tensorrt", tiny_model("float32", "N"))
    values = torch.from_numpy(normalize(pixels(3), PREPROCESSING)).cuda()
    with EngineRunner.load(path) as floats:
        np.testing.assert_allclose(
            floats.infer(values), floats.infer(values.cpu().numpy()), atol=1e-6
        )


@needs_gpu
def test_futures_of_tensors(run: EngineRunner) -> None:
    tensors = [torch.from_numpy(pixels(2, seed)).cuda() for seed in range(30)]
    futures = [run.submit(tensor) for tensor in tensors]
    del tensors
    for seed, future in enumerate(futures):
        assert_right(future.result(60), pixels(2, seed))


@needs_gpu
def test_what_spoils_a_recording_costs_the_graph_and_not_the_answer(
    run: EngineRunner, library: FakeTensorRtOnCuda
) -> None:
    """As a collection of garbage does that frees somebody's array in the thread that records."""
    address = checked(library.cuda.cudaMalloc(256))
    frees = [lambda: library.cuda.cudaFree(address)]
    library.while_recording = lambda: frees.pop()() if frees else None
    for seed in range(12):
        count = 1 + seed % 2
        assert_right(run.infer(pixels(count, seed)), pixels(count, seed))
    assert not frees
    assert library.executions > 6, "one of the two sizes has no graph"


@needs_gpu
def test_no_memory_is_lost(bundle: Path) -> None:
    grown = leaks.growth(str(bundle), 3000)
    assert max(grown.values()) <= leaks.ALLOWED_MIB, grown


@needs_gpu
def test_memory_that_is_not_there_is_one_line(bundle: Path, library: FakeTensorRtOnCuda) -> None:
    free, _ = library.cuda.cudaMemGetInfo()[1:]
    hoard = [checked(library.cuda.cudaMalloc(free - (64 << 20)))]
    try:
        with pytest.raises(BackendError, match="allocate") as caught:
            Cuda().allocate(1 << 30)
        assert "\n" not in str(caught.value)
        with EngineRunner.load(bundle) as run:
            assert_right(run.infer(pixels(2)), pixels(2))
    finally:
        for pointer in hoard:
            library.cuda.cudaFree(pointer)


BROKEN_DEVICE = """
import sys
import torch
from effnet_edge.errors import BackendError
from effnet_edge.runtime import EngineRunner
from fake_tensorrt_on_cuda import scripted_on_cuda
from tensorrt_runs import assert_right, pixels

with scripted_on_cuda():
    run = EngineRunner.load(sys.argv[1])
    assert_right(run.infer(pixels(2)), pixels(2))
    torch.zeros(1, device="cuda")[torch.tensor([10], device="cuda")]
    for _ in range(3):
        try:
            run.infer(pixels(2))
        except BackendError as error:
            print(error)
    try:
        run.submit(pixels(2)).result(20)
    except BackendError as error:
        print(error)
    run.close()
    print("closed")
"""


@needs_gpu
def test_after_a_fault_of_the_device_every_batch_is_an_error_and_closing_works(
    bundle: Path,
) -> None:
    tests = Path(__file__).parents[1]
    paths = [*sys.path, str(tests)]
    code = f"import sys; sys.path[:] = {paths!r}\n" + BROKEN_DEVICE
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == "closed", done.stderr
    assert len(lines) == 5, done.stdout
    assert all("CUDA cannot" in line for line in lines[:4]), done.stdout
