"""Which engine of a bundle is run, and what is said where none fits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fake_tensorrt import GPU, PLAN, VERSION
from tiny_bundles import (
    LABELS,
    engine_record,
    manifest,
    tiny_model,
    write_bundle,
)

from effnet_edge.bundle import BatchRange, Bundle, BundleWriter
from effnet_edge.errors import BackendError, UsageError
from effnet_edge.machine import Gpu, find_gpu
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.tensorrt import build, cuda, fitting, gpu
from effnet_edge.runtime.tensorrt.gpu import gpu_number

if TYPE_CHECKING:
    from pathlib import Path

    from effnet_edge.bundle import EngineRecord
from tensorrt_runs import Fake, assert_right, pixels


@pytest.fixture
def bundle(tmp_path: Path, fake: Fake) -> Path:  # noqa: ARG001
    return write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N"))


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
@pytest.mark.parametrize("version", ["", "new", "10.²", "9" * 5000, "10.3\n.0"])
def test_a_version_that_is_none_fits_nowhere(tmp_path: Path, version: str) -> None:
    engine = replace(FITS, library_version=version, version_compatible=True)
    path = write_engine(tmp_path / "b", b"never looked at", engine)
    with pytest.raises(BackendError, match="its engine was built for TensorRT ") as caught:
        EngineRunner.load(path)
    assert "\n" not in str(caught.value)


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
    assert (fitting.misfit(engine, gpu, version) is None) == fits


def test_a_compatible_engine_of_a_pc_does_not_fit_a_jetson(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_a_pc = replace(OTHER_GENERATION, hardware_compatible=True)
    path = write_engine(tmp_path / "b", b"never looked at", of_a_pc)
    monkeypatch.setattr(fitting, "jetpack_version", lambda: "6.2+b77")
    with pytest.raises(BackendError, match="built for a machine that is no Jetson; here is Test"):
        EngineRunner.load(path)
    with EngineRunner.load(path, rebuild=True) as run:
        assert_right(run.infer(pixels(2)), pixels(2))
    assert len(fake[1].configs) == 1
    assert fitting.misfit(replace(of_a_pc, jetpack="6.2+b77"), GPU, VERSION) is None


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


def test_rebuild_is_for_the_gpu_that_was_asked_for(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = Gpu("Second GPU", "8.9", "12.6")
    for module in (build, gpu, fitting):
        monkeypatch.setattr(module, "find_gpu", lambda number=0: (GPU, second)[number])
    fake[0].devices = 2
    path = write_engine(tmp_path / "b", b"old", FITS)
    with pytest.raises(BackendError, match=f": CUDA_VISIBLE_DEVICES=1 effnet-edge build {path} w"):
        EngineRunner.load(path, device="GPU:1")
    built_on = []

    def build_plan(_target: str, source: Any, *_: Any) -> bytes:
        built_on.append(fake[0].device)
        return PLAN + bytes(source.graph)

    monkeypatch.setattr(build, "build_plan", build_plan)
    with EngineRunner.load(path, device="GPU:1", rebuild=True) as run:
        assert_right(run.infer(pixels(2)), pixels(2))
    record = Bundle.load(path).manifest.engines[-1]
    assert (record.gpu, record.compute_capability) == ("Second GPU", ("8.9",))
    EngineRunner.load(path, device="GPU:1").close()
    assert built_on == [1]


@pytest.mark.usefixtures("fake")
def test_a_damaged_plan_is_refused_by_the_library(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "b", b"no plan at all", FITS)
    says = r"TensorRT 10.3.0.30 cannot load it: .*magic tag.*: run effnet-edge build again$"
    with pytest.raises(BackendError, match=says):
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
