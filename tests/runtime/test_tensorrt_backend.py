"""The bookkeeping of the TensorRT runner on a scripted CUDA and TensorRT.

What is allocated, copied, recorded and released, and what is said when something fails. No number
of a GPU is checked here.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_nvidia import (
    CAPTURE_UNSUPPORTED,
    GPU,
    ILLEGAL_ADDRESS,
    OUT_OF_MEMORY,
    PLAN,
    VERSION,
    FakeCuda,
    FakeTensorRt,
)
from gpu_or_fake import fake_nvidia
from tiny_bundles import (
    CLASSES,
    LABELS,
    SIDE,
    engine_record,
    manifest,
    tiny_model,
    truth,
    write_bundle,
)

from effnet_edge.bundle import BatchRange, Bundle, BundleWriter
from effnet_edge.errors import BackendError, UsageError
from effnet_edge.machine import Gpu, find_gpu
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.tensorrt import build, cuda, selection
from effnet_edge.runtime.tensorrt.gpu import gpu_number
from effnet_edge.runtime.tensorrt.lane import KEPT_GRAPHS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from effnet_edge.bundle import EngineRecord

Fake = tuple[FakeCuda, FakeTensorRt]


@pytest.fixture
def fake() -> Iterator[Fake]:
    with fake_nvidia() as modules:
        yield modules


@pytest.fixture
def bundle(tmp_path: Path, fake: Fake) -> Path:  # noqa: ARG001
    return write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N"))


def pixels(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def assert_right(logits: npt.NDArray[np.float32], batch: npt.NDArray[np.uint8]) -> None:
    np.testing.assert_allclose(logits, truth(tiny_model(), batch), rtol=1e-4, atol=1e-4)


class OnDevice:
    """Somebody else's array on the fake GPU, with the CUDA Array Interface."""

    def __init__(self, fake: FakeCuda, batch: npt.NDArray[Any], **changes: Any) -> None:
        _, self.address = fake.cudaMalloc(batch.nbytes)
        self.fake, self.batch = fake, batch
        self.write(batch)
        self.changes = changes

    def write(self, batch: npt.NDArray[Any]) -> None:
        self.fake.memory_at(self.address, batch.nbytes)[:] = batch.tobytes()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = {
            "version": 3,
            "shape": self.batch.shape,
            "typestr": self.batch.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": None,
        }
        return interface | self.changes


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


def test_other_backends_refuse_an_array_on_the_gpu(tmp_path: Path, fake: Fake) -> None:
    path = write_bundle(tmp_path / "cpu", "openvino", tiny_model())
    with EngineRunner.load(path) as run, pytest.raises(UsageError, match="got OnDevice"):
        run.infer(OnDevice(fake[0], pixels(1)))


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


# What is said of an engine that does not fit


def write_engine(path: Path, plan: bytes, *engines: EngineRecord) -> Path:
    with BundleWriter(path) as writer:
        (writer.staging / "model.onnx").write_bytes(tiny_model(batch="N").SerializeToString())
        for engine in engines:
            (writer.staging / engine.file).write_bytes(plan)
        written = manifest(
            target="tensorrt", model="model.onnx", batch=BatchRange(1, 4, 8), engines=engines
        )
        writer.commit(written, LABELS)
    return path


FITS = engine_record(batch=BatchRange(1, 4, 8))
OTHER_VERSION = replace(FITS, library_version="10.13.0.35")
OTHER_GENERATION = replace(FITS, compute_capability=("8.9",), gpu="NVIDIA L4")
OTHER_GPU = replace(FITS, gpu="Orin Nano")


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("engine", "built_for"),
    [
        (OTHER_VERSION, "TensorRT 10.13.0.35"),
        (OTHER_GENERATION, "compute capability 8.9"),
        (OTHER_GPU, "the GPU Orin Nano"),
    ],
)
def test_an_engine_for_another_machine_says_what_for_what_is_here_and_what_to_run(
    tmp_path: Path, engine: EngineRecord, built_for: str
) -> None:
    path = write_engine(tmp_path / "b", b"never looked at", engine)
    with pytest.raises(BackendError) as caught:
        EngineRunner.load(path)
    assert str(caught.value) == (
        f"{path}: its engine was built for {built_for}; here is Test GPU, compute capability 8.7, "
        f"TensorRT {VERSION}: effnet-edge build {path} will rebuild it (or load it with "
        "rebuild=True)"
    )


@pytest.mark.usefixtures("fake")
def test_no_engine_yet(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "b", b"")
    with pytest.raises(BackendError, match=f"has no engine yet: effnet-edge build {path} will"):
        EngineRunner.load(path)


@pytest.mark.parametrize(
    ("engine", "gpu", "version", "fits"),
    [
        (FITS, GPU, VERSION, True),
        (OTHER_VERSION, GPU, VERSION, False),
        (replace(FITS, version_compatible=True), GPU, "10.13.0.35", True),
        (replace(FITS, version_compatible=True), GPU, "11.0.0.1", False),
        (replace(OTHER_VERSION, version_compatible=True), GPU, VERSION, False),
        (replace(OTHER_GENERATION, hardware_compatible=True), GPU, VERSION, True),
        (replace(FITS, hardware_compatible=True), Gpu("T4", "7.5", "12.6"), VERSION, False),
        (replace(OTHER_GPU, library="tensorrt-rtx", gpu=None), GPU, VERSION, True),
    ],
)
def test_which_engines_fit(engine: EngineRecord, gpu: Gpu, version: str, fits: bool) -> None:
    assert (selection.misfit(engine, gpu, version) is None) == fits


@pytest.mark.usefixtures("fake")
def test_the_engine_that_fits_is_found_among_others_with_its_own_batch(tmp_path: Path) -> None:
    others = [
        replace(engine, file=f"engine-{index}.plan")
        for index, engine in enumerate((OTHER_VERSION, OTHER_GENERATION))
    ]
    path = write_engine(
        tmp_path / "b", b"not one of ours", *others, replace(FITS, batch=BatchRange(1, 2, 3))
    )
    with BundleWriter(path) as writer:
        old = Bundle.load(path)
        for name in old.manifest.files:
            if name.endswith((".plan", ".onnx")):
                (writer.staging / name).write_bytes((path / name).read_bytes())
        plan = PLAN + tiny_model(batch="N").SerializeToString()
        (writer.staging / FITS.file).write_bytes(plan)
        writer.commit(old.manifest, LABELS)
    with EngineRunner.load(path) as run:
        assert run.manifest.batch == BatchRange(1, 2, 3)
        assert_right(run.infer(pixels(7)), pixels(7))


def test_rebuild_compiles_what_is_missing_and_runs_it(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_engine(tmp_path / "b", b"old", OTHER_VERSION)

    def build_plan(target: str, source: Any, *_: Any) -> bytes:
        assert target == "tensorrt"
        return PLAN + bytes(source.graph)

    monkeypatch.setattr(build, "build_plan", build_plan)
    with EngineRunner.load(path, rebuild=True) as run:
        assert_right(run.infer(pixels(2)), pixels(2))
    (first, second) = Bundle.load(path).manifest.engines
    assert (first.library_version, second.library_version) == ("10.13.0.35", VERSION)
    EngineRunner.load(path).close()
    assert fake[0].alive == {}


@pytest.mark.usefixtures("fake")
def test_a_damaged_plan_is_refused_by_the_library(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "b", b"no plan at all", FITS)
    with pytest.raises(BackendError, match=r"TensorRT 10.3.0.30 cannot load it: .*magic tag"):
        EngineRunner.load(path)


# Options and what is missing


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threads": 2}, "TensorRT runs on the GPU and has none"),
        ({"precision": "fp16"}, "runs the precision that it was exported in (fp32)"),
        ({"device": "TPU"}, "give GPU, or GPU:1 and so on"),
        ({"device": "GPU:x"}, "give GPU, or GPU:1 and so on"),
    ],
)
def test_options_that_do_not_fit(bundle: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        EngineRunner.load(bundle, **options)
    assert says in str(caught.value)


def test_a_gpu_that_is_not_there(bundle: Path) -> None:
    with pytest.raises(BackendError, match="no NVIDIA GPU number 3 here: choose GPU:0"):
        EngineRunner.load(bundle, device="GPU:3")


def test_names_of_devices(bundle: Path) -> None:
    names = [None, "GPU", "gpu.0", "cuda:0", "GPU:12", "2"]
    assert [gpu_number(name) for name in names] == [0, 0, 0, 0, 12, 2]
    with EngineRunner.load(bundle, device="cuda:0") as run:
        assert run.device == "Test GPU"


def test_without_the_bindings_the_error_names_them(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
    with pytest.raises(BackendError, match=r"cuda-python is not installed: pip install 'cuda-bind"):
        EngineRunner.load(bundle)


# The real libraries on a machine without a GPU

needs_no_gpu = pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU here")


@needs_no_gpu
def test_the_real_cuda_runtime_without_a_driver_is_one_line() -> None:
    pytest.importorskip("cuda.bindings.runtime")
    with pytest.raises(cuda.CudaError) as caught:
        cuda.Cuda()
    assert str(caught.value).startswith("CUDA cannot use GPU 0: ")
    assert "\n" not in str(caught.value)


@needs_no_gpu
def test_a_bundle_of_tensorrt_rtx_without_a_gpu_says_where_to_run_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    path = write_bundle(tmp_path / "b", "tensorrt-rtx", tiny_model())
    with pytest.raises(BackendError) as caught:
        EngineRunner.load(path)
    assert str(caught.value) == (
        f"{path}: there is no NVIDIA GPU here, or its driver (libcuda.so.1) is not installed: run "
        f"it on the device, or see what its graph computes with effnet-edge parity {path}"
    )


def test_logits_have_memory_of_their_own(bundle: Path) -> None:
    with EngineRunner.load(bundle) as run:
        first = run.infer(pixels(1))
        kept = first.copy()
        run.infer(pixels(1, seed=1))
        np.testing.assert_array_equal(first, kept)
        assert first.shape == (1, CLASSES)
