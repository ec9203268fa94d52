"""What a bundle says of the engines that were built into it, and what a build refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from fake_tensorrt import GPU, VERSION, FakeTensorRt
from gpu_or_fake import fake_nvidia
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.bundle import BatchRange, Bundle, BundleWriter
from effnet_edge.errors import BackendError
from effnet_edge.machine import Gpu
from effnet_edge.runtime.tensorrt import build
from effnet_edge.runtime.tensorrt.build import build_engine, can_build
from effnet_edge.runtime.tensorrt.plan import BuildOptions
from effnet_export.sbom import write_sbom

if TYPE_CHECKING:
    from pathlib import Path

from tensorrt_builds import FILE
from tensorrt_commands import command


@pytest.fixture
def bundle(tmp_path: Path, library: FakeTensorRt) -> Bundle:  # noqa: ARG001
    """For 1 to 8 images, with an engine that was made somewhere else."""
    return Bundle.load(write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N")))


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


def test_the_bill_of_materials_has_the_engine_that_is_there(tmp_path: Path, bundle: Bundle) -> None:
    with BundleWriter(tmp_path / "with a bill") as writer:
        (writer.staging / "model.onnx").write_bytes(bundle.read("model.onnx"))
        bare = replace(bundle.manifest, engines=())
        write_sbom(bare, writer.staging)
        built = writer.commit(bare, bundle.labels)
    for version, batch in ((2, BatchRange(1, 1, 2)), (3, BatchRange(1, 4, 8))):
        built = build_engine(built, BuildOptions(batch=batch))
        text = built.read("sbom.cdx.json").decode()
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
        bill = json.loads(text)
        files = {each["name"]: each for each in bill["components"] if each["type"] == "file"}
        digest = built.manifest.files[FILE].sha256
        assert files[FILE]["hashes"] == [{"alg": "SHA-256", "content": digest}]
        assert (set(files), bill["version"]) == ({FILE, "model.onnx"}, version)


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
        (("--workspace", str(1 << 45)), 2, "--workspace"),
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
    monkeypatch.setattr(build, "find_gpu", lambda _number=0: None)
    assert not can_build("tensorrt")
    with pytest.raises(BackendError, match="no NVIDIA GPU here: run effnet-edge build on the dev"):
        build_engine(bundle)
