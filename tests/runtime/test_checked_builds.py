"""An engine that answers otherwise than its graph may gets into no bundle, and runs nowhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from answered_bundles import put_answers
from fake_tensorrt import FakeBuilder
from gpu_or_fake import fake_nvidia
from tensorrt_builds import FILE
from tensorrt_commands import command
from tiny_bundles import LABELS, manifest, tiny_model

from effnet_edge.bundle import BatchRange, Bundle, BundleWriter
from effnet_edge.errors import BackendError, BundleError
from effnet_edge.machine import Gpu
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.tensorrt.build import build_engine
from effnet_edge.runtime.tensorrt.plan import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fake_tensorrt import FakeConfig, FakeNetwork

BATCH = BatchRange(1, 2, 4)


@pytest.fixture(autouse=True)
def _library() -> Iterator[None]:
    with fake_nvidia():
        yield


def write(path: Path, target: str = "tensorrt") -> Bundle:
    """A bundle of one graph as an export writes it, without an engine."""
    model = tiny_model(batch="N")
    with BundleWriter(path) as writer:
        (writer.staging / "model.onnx").write_bytes(model.SerializeToString())
        described = manifest(target=target, model="model.onnx", precision="fp16", batch=BATCH)
        writer.commit(described, LABELS)
    return put_answers(path, model)


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let TensorRT leave the bias of every graph out."""
    usual = FakeBuilder.build_serialized_network

    def without_bias(self: FakeBuilder, network: FakeNetwork, config: FakeConfig) -> bytes | None:
        model = tiny_model(batch="N")
        (bias,) = (each for each in model.graph.initializer if each.name == "bias")
        bias.raw_data = bytes(len(bias.raw_data))
        network.graph = model.SerializeToString()
        return usual(self, network, config)

    monkeypatch.setattr(FakeBuilder, "build_serialized_network", without_bias)


def test_a_build_tells_how_the_engine_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "b")
    assert command("build", tmp_path / "b") == 0
    told = capsys.readouterr().out
    assert "the engine answers as exported: " in told
    check = Bundle.load(tmp_path / "b").manifest.engines[-1].check
    assert check is not None
    assert (check.holds, check.batch_sizes) == (True, (1, 2, 3, 4, 5))
    assert str(check) in told
    assert command("info", tmp_path / "b") == 0
    assert f"tensorrt 10.3.0.30, {BATCH}: " in " ".join(capsys.readouterr().out.split())


def test_the_sizes_are_those_of_the_engine(tmp_path: Path) -> None:
    built = build_engine(write(tmp_path / "b"), BuildOptions(batch=BatchRange(3, 3, 3)))
    check = built.manifest.engines[-1].check
    assert check is not None
    assert check.batch_sizes == (1, 3, 4)


@pytest.mark.usefixtures("wrong")
def test_a_wrong_engine_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "b")
    before = contents(tmp_path / "b")

    assert command("build", tmp_path / "b", "--quiet") == 1

    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert told.err.startswith(
        f"effnet-edge: error: {tmp_path / 'b'}: the engine answers otherwise than exported: "
    )
    assert contents(tmp_path / "b") == before
    with pytest.raises(BackendError, match="answers otherwise than exported"):
        EngineRunner.load(tmp_path / "b", rebuild=True)
    assert contents(tmp_path / "b") == before


@pytest.mark.usefixtures("wrong")
def test_one_that_was_built_elsewhere_is_held_where_it_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "b", "tensorrt-rtx")
    assert command("build", tmp_path / "b", "--compute-capability", "8.9") == 0
    told = capsys.readouterr().out
    assert "not compared with its graph, as this machine cannot run it: each load where" in told
    assert Bundle.load(tmp_path / "b").manifest.engines[-1].check is None
    with (
        fake_nvidia(gpu_here=Gpu("Another", "8.9", "12.6")) as (cuda, _),
        pytest.raises(BackendError, match="answers otherwise than exported"),
    ):
        EngineRunner.load(tmp_path / "b")
    assert cuda.alive == {}


def test_such_a_one_that_is_right_is_run(tmp_path: Path) -> None:
    options = BuildOptions(compute_capabilities=("8.9",))
    build_engine(write(tmp_path / "b", "tensorrt-rtx"), options)
    with fake_nvidia(gpu_here=Gpu("Another", "8.9", "12.6")):
        EngineRunner.load(tmp_path / "b").close()


def as_version_3(folder: Path) -> None:
    """What effnet-edge wrote before it compared engines."""
    document = json.loads((folder / "manifest.json").read_text())
    document["schema_version"] = 3
    (folder / document.pop("answers")).unlink()
    del document["files"]["answers.json"]
    for engine in document["engines"]:
        del engine["check"]
    (folder / "manifest.json").write_text(json.dumps(document))


def test_of_an_older_bundle_it_is_said_that_nothing_was_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_engine(write(tmp_path / "b"))
    as_version_3(tmp_path / "b")
    EngineRunner.load(tmp_path / "b").close()

    assert command("build", tmp_path / "b") == 0

    told = capsys.readouterr().out
    assert "not compared with its graph, as the bundle has no known answers: export it" in told
    manifest = Bundle.load(tmp_path / "b").manifest
    assert [(each.file, each.check) for each in manifest.engines] == [(FILE, None)]


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"exact": [[1]], "allowed": {"model.onnx": [1]}}', '{"exact": 1, "allowed": {}}'],
)
def test_answers_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path / "b")
    with BundleWriter(tmp_path / "c") as writer:
        for name in ("model.onnx", "answers.json"):
            (writer.staging / name).write_bytes((tmp_path / "b" / name).read_bytes())
        (writer.staging / "answers.json").write_text(text)
        bundle = writer.commit(Bundle.load(tmp_path / "b").manifest, None)
    with pytest.raises(BundleError, match=r"answers\.json: (is not valid JSON|has no answers)"):
        build_engine(bundle)


def test_a_check_that_breaks_its_own_limit_is_refused(tmp_path: Path) -> None:
    build_engine(write(tmp_path / "b"))
    document = json.loads((tmp_path / "b" / "manifest.json").read_text())
    document["engines"][0]["check"]["at_most"] = 0.0
    document["engines"][0]["check"]["rms_error"] = 0.5
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="engines: the engine answers otherwise"):
        Bundle.load(tmp_path / "b")
