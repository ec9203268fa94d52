"""What a build asks of TensorRT, keeps and says, on a scripted library.

No number of a GPU is checked here; tests/export/test_tensorrt_graph.py has a real compiler.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_nvidia import GPU, RTX_VERSION, VERSION, FakeCuda, FakeTensorRt, FakeTensorRtRtx
from gpu_or_fake import fake_nvidia
from tiny_bundles import SIDE, tiny_model, truth, write_bundle

from effnet_edge.bundle import BatchRange, Bundle
from effnet_edge.cli.main import main
from effnet_edge.errors import BackendError, UsageError
from effnet_edge.machine import Gpu, find_gpu
from effnet_edge.runtime import EngineRunner, doctor
from effnet_edge.runtime.tensorrt import build
from effnet_edge.runtime.tensorrt.build import build_engine, can_build
from effnet_edge.runtime.tensorrt.plan import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fake_nvidia import FakeConfig

FILE = "engine-sm87-test-gpu.plan"
IMAGE = (SIDE, SIDE, 3)


@pytest.fixture
def library() -> Iterator[FakeTensorRt]:
    with fake_nvidia() as (_, tensorrt):
        yield tensorrt


@pytest.fixture
def bundle(tmp_path: Path, library: FakeTensorRt) -> Bundle:  # noqa: ARG001
    """For 1 to 8 images, with an engine that was made somewhere else."""
    return Bundle.load(write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N")))


@pytest.fixture
def rtx_bundle(tmp_path: Path, library: FakeTensorRt) -> Bundle:  # noqa: ARG001
    return Bundle.load(write_bundle(tmp_path / "rtx", "tensorrt-rtx", tiny_model(batch="N")))


def asked(library: FakeTensorRt, bundle: Bundle, options: BuildOptions) -> FakeConfig:
    build_engine(bundle, options)
    return library.configs[-1]


def command(*arguments: object) -> int:
    """The exit code of `effnet-edge ARGUMENTS…`."""
    usual = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["effnet-edge", *map(str, arguments)])
        try:
            with pytest.raises(SystemExit) as left:
                main()
        finally:
            signal.signal(signal.SIGTERM, usual)
    return int(left.value.code or 0)


# What TensorRT is asked for


def test_nothing_but_what_the_inspector_tells_is_asked_for_by_default(
    library: FakeTensorRt, bundle: Bundle
) -> None:
    config = asked(library, bundle, BuildOptions())
    assert config.limits == {}
    assert config.builder_optimization_level == 3
    assert (config.default_device_type, config.hardware_compatibility_level) == ("GPU", "NONE")
    assert config.flags == set(), "TF32 is off for an FP32 bundle"
    assert config.profiling_verbosity == "DETAILED"
    shapes = tuple((images, *IMAGE) for images in (1, 4, 8))
    assert config.profiles == [{"pixels": shapes}]


def test_other_precisions_keep_tf32(library: FakeTensorRt, tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "b", "tensorrt", tiny_model(), precision="fp16")
    assert asked(library, Bundle.load(path), BuildOptions()).flags == {"TF32"}


def test_the_options_of_a_build(library: FakeTensorRt, bundle: Bundle) -> None:
    options = BuildOptions(workspace_mib=64, optimization_level=5, hardware_compatible=True)
    config = asked(library, bundle, options)
    assert config.limits == {"WORKSPACE": 64 * 1024 * 1024}
    assert config.builder_optimization_level == 5
    assert config.hardware_compatibility_level == "AMPERE_PLUS"
    assert Bundle.load(bundle.path).manifest.engines[-1].hardware_compatible


def test_the_batch_becomes_the_profile_and_the_runners_range(
    library: FakeTensorRt, bundle: Bundle
) -> None:
    config = asked(library, bundle, BuildOptions(batch=BatchRange(2, 3, 5)))
    shapes = tuple((images, *IMAGE) for images in (2, 3, 5))
    assert config.profiles == [{"pixels": shapes}]
    pixels = np.random.default_rng(0).integers(0, 256, (7, *IMAGE), np.uint8)
    with EngineRunner.load(bundle.path) as run:
        assert run.manifest.batch == BatchRange(2, 3, 5)
        np.testing.assert_allclose(run.infer(pixels), truth(tiny_model(), pixels), rtol=1e-4)
    assert library.configs == [config], "loading compiles nothing"


def test_a_dla_core_with_the_gpu_for_the_rest(library: FakeTensorRt, bundle: Bundle) -> None:
    library.dla_cores = 2
    config = asked(library, bundle, BuildOptions(dla_core=1))
    assert (config.default_device_type, config.DLA_core) == ("DLA", 1)
    assert "GPU_FALLBACK" in config.flags
    (record,) = (each for each in Bundle.load(bundle.path).manifest.engines if each.dla_core == 1)
    assert record.file == "engine-sm87-test-gpu-dla1.plan"
    EngineRunner.load(bundle.path).close()
    assert library.runtimes[-1].DLA_core == 1


@pytest.mark.parametrize(
    ("cores", "core", "says"),
    [
        (0, 0, "--dla 0: TensorRT 10.3.0.30 finds no DLA core here: leave it out"),
        (1, 1, "--dla 1: TensorRT 10.3.0.30 finds 0 alone here"),
        (2, 2, "--dla 2: TensorRT 10.3.0.30 finds 0 to 1 here"),
    ],
)
def test_a_dla_core_that_is_not_there(
    library: FakeTensorRt, bundle: Bundle, cores: int, core: int, says: str
) -> None:
    library.dla_cores = cores
    with pytest.raises(UsageError) as caught:
        build_engine(bundle, BuildOptions(dla_core=core))
    assert str(caught.value) == says


def test_a_version_compatible_engine_may_bring_its_runtime_and_others_may_not(
    library: FakeTensorRt, bundle: Bundle
) -> None:
    config = asked(library, bundle, BuildOptions(version_compatible=True))
    assert "VERSION_COMPATIBLE" in config.flags
    EngineRunner.load(bundle.path).close()
    assert library.runtimes[-1].engine_host_code_allowed
    build_engine(bundle)
    EngineRunner.load(bundle.path).close()
    assert not library.runtimes[-1].engine_host_code_allowed


# TensorRT 10.0


def test_device_memory_is_set_as_in_tensorrt_10_0(bundle: Bundle, library: FakeTensorRt) -> None:
    library.before_10_1 = True
    pixels = np.random.default_rng(0).integers(0, 256, (2, *IMAGE), np.uint8)
    with EngineRunner.load(bundle.path) as run:
        np.testing.assert_allclose(run.infer(pixels), truth(tiny_model(), pixels), rtol=1e-4)


# The timing cache


def test_the_timing_cache_beside_the_bundle_is_used_again(
    bundle: Bundle, library: FakeTensorRt
) -> None:
    cache = bundle.path.with_name("b.timing-cache")
    for builds in (1, 2):
        build_engine(bundle)
        assert cache.read_text() == f"{GPU.name}: {builds} builds"
    assert library.configs[0].cache is not library.configs[1].cache
    assert cache.name not in Bundle.load(bundle.path).manifest.files


@pytest.mark.parametrize("content", ["another GPU: 7 builds", "damaged"])
def test_a_timing_cache_that_does_not_fit_is_begun_anew(bundle: Bundle, content: str) -> None:
    cache = bundle.path.with_name("b.timing-cache")
    cache.write_text(content)
    build_engine(bundle)
    assert cache.read_text() == f"{GPU.name}: 1 builds"


def test_a_refused_timing_cache_is_no_reason_for_a_failed_build(
    bundle: Bundle, library: FakeTensorRt
) -> None:
    bundle.path.with_name("b.timing-cache").write_text("damaged")
    library.build_error = "[builder.cpp::run::1] Error Code 10: Could not find any implementation"
    with pytest.raises(BackendError) as caught:
        build_engine(bundle)
    assert str(caught.value) == (
        f"TensorRT {VERSION} cannot build {bundle.model_path}: [builder.cpp::run::1] Error Code "
        "10: Could not find any implementation"
    )


def test_a_timing_cache_that_cannot_be_written_is_one_line(bundle: Bundle) -> None:
    cache = bundle.path.with_name("b.timing-cache")
    cache.mkdir()
    before = sorted(bundle.path.iterdir())
    with pytest.raises(BackendError, match=r"b\.timing-cache: cannot write the timing cache: Is"):
        build_engine(bundle)
    assert sorted(bundle.path.iterdir()) == before
    assert [each.name for each in bundle.path.parent.iterdir()] == ["b", cache.name]


# Progress, and an end before the end


def test_progress_is_that_of_the_outer_phase(bundle: Bundle) -> None:
    told: list[tuple[str, int, int]] = []
    build_engine(bundle, on_progress=lambda *step: told.append(step))
    assert told == [("Building engine", done, 2) for done in (0, 1, 2)]


@pytest.mark.parametrize("options", [(), ("--quiet",)])
def test_progress_is_a_bar_on_a_terminal(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    assert command("build", bundle.path, *options) == 0
    shown = "building the engine: Building engine" in capsys.readouterr().err
    assert shown == (not options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_build_and_changes_nothing(bundle: Bundle, number: int) -> None:
    """The handler is called and no signal raised: OpenVINO, when two of its models were closed in
    the order in which they were loaded, leaves the process with a signal stack that is gone."""
    before = {file.name: file.read_bytes() for file in bundle.path.iterdir()}
    steps: list[int] = []

    def interrupt(_phase: str, done: int, _total: int) -> None:
        steps.append(done)
        if done == 1:
            handler: Any = signal.getsignal(number)
            handler(number, None)

    def leave(*_: object) -> None:
        raise KeyboardInterrupt

    usual = signal.signal(number, leave)
    try:
        with pytest.raises(KeyboardInterrupt):
            build_engine(bundle, on_progress=interrupt)
        assert signal.getsignal(number) is leave
    finally:
        signal.signal(number, usual)
    assert steps == [0, 1]
    assert {file.name: file.read_bytes() for file in bundle.path.iterdir()} == before


def test_another_thread_can_build(bundle: Bundle) -> None:
    built: list[Bundle] = []
    thread = threading.Thread(target=lambda: built.append(build_engine(bundle)))
    thread.start()
    thread.join(60)
    assert built[0].manifest.engines[-1].file == FILE


# What the bundle says of it


def test_the_manifest_says_where_the_engine_was_built(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "jetpack_version", lambda: "6.2+b77")
    record = build_engine(bundle).manifest.engines[-1]
    assert (record.file, record.library, record.library_version) == (FILE, "tensorrt", VERSION)
    assert (record.gpu, record.compute_capability, record.cuda, record.jetpack) == (
        "Test GPU",
        ("8.7",),
        "12.6",
        "6.2+b77",
    )
    assert record.batch == BatchRange(1, 4, 8)
    assert Bundle.load(bundle.path).manifest.engines[-1] == record


def test_a_device_has_one_engine_and_other_devices_keep_theirs(bundle: Bundle) -> None:
    (first,) = bundle.manifest.engines
    build_engine(bundle)
    built = build_engine(Bundle.load(bundle.path), BuildOptions(batch=BatchRange(2, 2, 2)))
    assert [each.file for each in built.manifest.engines] == [first.file, FILE]
    assert built.manifest.engines[-1].batch == BatchRange(2, 2, 2)
    with fake_nvidia(gpu_here=Gpu("NVIDIA Test-GPU (2)", GPU.compute_capability, GPU.cuda)):
        other = build_engine(built)
    assert [each.file for each in other.manifest.engines] == [
        first.file,
        FILE,
        "engine-sm87-nvidia-test-gpu-2.plan",
    ]


def test_the_last_line_says_what_was_built_and_what_it_replaced(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for options in ((), ("--batch", "2"), ("--batch", "2")):
        assert command("build", bundle.path, *options) == 0
        said.append(capsys.readouterr().out.splitlines()[-1])
    assert said[0].startswith(f"{bundle.path / FILE}: ")
    ends = f"and compute capability 8.7, tensorrt {VERSION}"
    assert said[0].endswith(f", for 1 to 8 images, best 4 {ends}")
    assert said[1].endswith(
        f", for 2 images {ends} (instead of the engine for 1 to 8 images, best 4)"
    )
    assert said[2].endswith(f", for 2 images {ends}")


def test_the_last_line_says_which_version_was_replaced(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("build", bundle.path) == 0
    monkeypatch.setattr(FakeTensorRt, "__version__", "10.13.0.35")
    assert command("build", bundle.path) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"tensorrt 10.13.0.35 (instead of the engine of tensorrt {VERSION})")
    assert len(Bundle.load(bundle.path).manifest.engines) == 2


def test_a_build_in_json(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("build", bundle.path, "--batch", "1:2:3", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["file"] == FILE
    assert told["batch"] == {"minimum": 1, "optimum": 2, "maximum": 3}
    assert told["bytes"] == (bundle.path / FILE).stat().st_size


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--batch", "9"), 2, "--batch 9:9:9: the graph takes 1 to 8 images: export it again"),
        (("--batch", "3:2:1"), 2, "'3:2:1' is neither a number of images nor MIN:OPT:MAX"),
        (("--dla", "0"), 2, "--dla 0: TensorRT 10.3.0.30 finds no DLA core here"),
        (("--compute-capability", "8.9"), 2, "TensorRT builds for the GPU of this machine only"),
        (("--workspace", "0"), 2, "--workspace"),
        (("--optimization-level", "6"), 2, "--optimization-level"),
    ],
)
def test_what_a_build_refuses(
    bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    assert command("build", bundle.path, *options) == code
    error = capsys.readouterr().err
    assert says in error
    assert error.splitlines()[-1].startswith("effnet-edge: error: ")
    assert Bundle.load(bundle.path).manifest == bundle.manifest


def test_without_a_gpu_a_build_names_the_device(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "find_gpu", lambda: None)
    assert not can_build("tensorrt")
    with pytest.raises(BackendError, match="no NVIDIA GPU here: run effnet-edge build on the dev"):
        build_engine(bundle)


# TensorRT-RTX


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (BuildOptions(dla_core=0), "--dla"),
        (BuildOptions(version_compatible=True), "--version-compatible"),
        (BuildOptions(hardware_compatible=True), "--hardware-compatible"),
    ],
)
def test_tensorrt_rtx_has_no_such_engines(
    rtx_bundle: Bundle, options: BuildOptions, name: str
) -> None:
    with pytest.raises(UsageError, match=f"{name}: TensorRT-RTX has no such engines"):
        build_engine(rtx_bundle, options)
    assert Bundle.load(rtx_bundle.path).manifest.engines == ()


@pytest.mark.parametrize(
    ("here", "built_for"),
    [
        ("8.6", ("8.6", "8.9", "12.0")),
        ("7.5", ("8.6", "8.9", "12.0", "7.5")),
        ("9.0", ("8.6", "8.9", "12.0")),
    ],
)
def test_tensorrt_rtx_compiles_for_the_gpu_here_as_well(
    rtx_bundle: Bundle, here: str, built_for: tuple[str, ...]
) -> None:
    with fake_nvidia(gpu_here=Gpu("A GPU", here, "12.6")):
        (record,) = build_engine(rtx_bundle).manifest.engines
    assert record.compute_capability == built_for


def test_a_gpu_that_tensorrt_rtx_has_no_engines_for(rtx_bundle: Bundle) -> None:
    with fake_nvidia(gpu_here=Gpu("NVIDIA H100", "9.0", "12.6")):
        for rebuild in (False, True):
            with pytest.raises(BackendError) as caught:
                EngineRunner.load(rtx_bundle.path, rebuild=rebuild)
            assert str(caught.value) == (
                f"{rtx_bundle.path}: TensorRT-RTX {RTX_VERSION} has no engines for NVIDIA H100, "
                "compute capability 9.0, only for 7.5, 8.6, 8.7, 8.9, 12.0: export for it with "
                "--target tensorrt"
            )


@pytest.mark.parametrize(
    ("version", "here", "built_for"),
    [
        ("1.8.0.1", "8.6", f"TensorRT-RTX {RTX_VERSION}"),
        (RTX_VERSION, "7.5", "compute capability 8.6, 8.9, 12.0"),
    ],
)
def test_an_engine_of_another_tensorrt_rtx_or_for_other_gpus(
    rtx_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    here: str,
    built_for: str,
) -> None:
    options = BuildOptions(compute_capabilities=("8.6", "8.9", "12.0"))
    path = build_engine(rtx_bundle, options).path
    monkeypatch.setattr(FakeTensorRtRtx, "__version__", version)
    with fake_nvidia(gpu_here=Gpu("A GPU", here, "12.6")):
        with pytest.raises(BackendError) as caught:
            EngineRunner.load(path)
        assert str(caught.value) == (
            f"{path}: its engine was built for {built_for}; here is A GPU, compute capability "
            f"{here}, TensorRT-RTX {version}: effnet-edge build {path} will rebuild it (or load "
            "it with rebuild=True)"
        )
        EngineRunner.load(path, rebuild=True).close()
        EngineRunner.load(path).close()


# The GPU, and the doctor


def test_the_gpu_is_what_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {75: 8, 76: 7}

    def put(value: int) -> Any:
        def call(place: Any, *_: object) -> int:
            place._obj.value = value
            return 0

        return call

    def name(buffer: Any, size: int, _device: object) -> int:
        buffer.value = b"Orin"[:size]
        return 0

    def attribute(place: Any, number: int, _device: object) -> int:
        place._obj.value = numbers[number]
        return 0

    driver = SimpleNamespace(
        cuInit=lambda _: 0,
        cuDeviceGet=lambda _, index: 0 if index == 0 else 101,
        cuDriverGetVersion=put(12060),
        cuDeviceGetName=name,
        cuDeviceGetAttribute=attribute,
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda file: driver if file == "libcuda.so.1" else None)
    assert find_gpu() == Gpu("Orin", "8.7", "12.6")
    assert find_gpu(1) is None


def test_the_doctor_compiles_and_runs_its_probe(
    library: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.metadata, "version", lambda _: VERSION)
    statuses = {each.name: each for each in doctor.available_backends()}
    assert statuses["tensorrt"].detail == "runs FP32 on Test GPU"
    assert statuses["tensorrt"].works
    (config,) = library.configs
    assert config.flags == set()
    assert isinstance(library.cuda, FakeCuda)
    assert library.cuda.alive == {}
