"""What a build asks of TensorRT, keeps and says, on a scripted library.

No number of a GPU is checked here; tests/export/test_tensorrt_graph.py has a real compiler.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_tensorrt import GPU, VERSION, FakeTensorRt
from tensorrt_builds import FILE, asked
from tensorrt_commands import command
from tiny_bundles import SIDE, tiny_model, truth, write_bundle

from effnet_edge.bundle import BatchRange, Bundle
from effnet_edge.errors import BackendError, UsageError
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.tensorrt.build import build_engine
from effnet_edge.runtime.tensorrt.plan import BuildOptions


@pytest.fixture
def bundle(tmp_path: Path, library: FakeTensorRt) -> Bundle:  # noqa: ARG001
    """For 1 to 8 images, with an engine that was made somewhere else."""
    return Bundle.load(write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N")))


IMAGE = (SIDE, SIDE, 3)


# What TensorRT is asked for


def test_nothing_but_what_the_inspector_tells_is_asked_for_by_default(
    library: FakeTensorRt, bundle: Bundle
) -> None:
    config = asked(library, bundle, BuildOptions())
    assert config.limits == {}
    assert config.builder_optimization_level == 3
    assert (config.default_device_type, config.hardware_compatibility_level) == ("GPU", "NONE")
    assert config.flags == set(), "TF32 is off"
    assert config.profiling_verbosity == "DETAILED"
    shapes = tuple((images, *IMAGE) for images in (1, 4, 8))
    assert config.profiles == [{"pixels": shapes}]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_other_precisions_have_in_fp32_is_not_rounded_to_tf32(
    library: FakeTensorRt, tmp_path: Path, precision: str
) -> None:
    """It is in FP32 because the digits that FP16 has, and TF32, are too few for it."""
    path = write_bundle(tmp_path / "b", "tensorrt", tiny_model(), precision=precision)
    assert asked(library, Bundle.load(path), BuildOptions()).flags == set()


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


def test_a_timing_cache_that_may_not_be_read_is_begun_anew(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that root made."""
    cache = bundle.path.with_name("b.timing-cache")
    cache.write_text(f"{GPU.name}: 7 builds")
    usual = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path == cache:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return usual(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
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
