"""What TensorRT-RTX does differently, on a scripted library."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, cast

import pytest
import tensorrt_rtx as real_library
from fake_tensorrt import RTX_VERSION, FakeTensorRt, FakeTensorRtRtx
from gpu_or_fake import fake_nvidia
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.bundle import Bundle
from effnet_edge.errors import BackendError, UsageError
from effnet_edge.machine import Gpu
from effnet_edge.runtime import EngineRunner, doctor
from effnet_edge.runtime.tensorrt.build import build_engine
from effnet_edge.runtime.tensorrt.plan import (
    BuildOptions,
    UncompiledGraph,
    build_plan,
    known_generations,
)

if TYPE_CHECKING:
    from pathlib import Path

    from effnet_edge.runtime.tensorrt.api import TensorRtRtx


@pytest.fixture
def rtx_bundle(tmp_path: Path, library: FakeTensorRt) -> Bundle:  # noqa: ARG001
    return Bundle.load(write_bundle(tmp_path / "rtx", "tensorrt-rtx", tiny_model(batch="N")))


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


def test_the_same_gpus_named_otherwise_have_one_engine(rtx_bundle: Bundle) -> None:
    for asked in (("8.6", "12.0", "8.9"), ("12.0", "8.9", "8.6", "8.9")):
        options = BuildOptions(compute_capabilities=asked)
        build_engine(rtx_bundle, options)
    (record,) = Bundle.load(rtx_bundle.path).manifest.engines
    assert (record.file, len(record.compute_capability)) == ("engine-sm86-sm89-sm120.plan", 3)


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


def test_the_doctor_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "version", lambda _: RTX_VERSION)
    with fake_nvidia(gpu_here=Gpu("NVIDIA H200", "9.0", "13.0")):
        statuses = {each.name: each for each in doctor.available_backends()}
    assert not statuses["tensorrt-rtx"].works
    assert "has no engines for NVIDIA H200" in statuses["tensorrt-rtx"].detail
    assert "--compute-capability" not in statuses["tensorrt-rtx"].detail


@pytest.mark.parametrize("generation", known_generations(cast("TensorRtRtx", real_library)))
def test_the_doctors_probe_compiles_for_every_gpu(generation: str) -> None:
    """Also for Turing, for which there are no matrix products in FP32."""
    graph = resources.files("effnet_edge").joinpath("data", "probe.onnx").read_bytes()
    source = UncompiledGraph(graph, "the probe", "", None)
    assert build_plan("tensorrt-rtx", source, (generation,), BuildOptions())


def test_what_turing_cannot_compute_is_told_with_what_it_can() -> None:
    graph = tiny_model().SerializeToString()
    source = UncompiledGraph(graph, "b/model.onnx", "", None)
    with pytest.raises(BackendError, match="export it with --fp16 or --int8"):
        build_plan("tensorrt-rtx", source, ("7.5",), BuildOptions())


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
