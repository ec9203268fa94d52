"""Of a bundle's graphs the device keeps the fastest; the library and the times are made up."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from fake_tensorrt import FakeBuilder
from gpu_or_fake import fake_nvidia
from open_bundles import BATCH, NOISE, noisy_model, write_open
from signing_keys import write_keys
from tensorrt_commands import command
from tiny_bundles import SIDE, truth

from effnet_edge.bundle import BatchRange, Bundle
from effnet_edge.bundle.signing import SigningKey, TrustedKey
from effnet_edge.bundle.writing import sign_bundle
from effnet_edge.choosing import on_device
from effnet_edge.choosing.on_device import build_fastest
from effnet_edge.errors import BackendError, BundleError, GateError, UsageError
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.tensorrt.build import build_engine
from effnet_edge.runtime.tensorrt.plan import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from fake_tensorrt import FakeConfig, FakeNetwork, FakeTensorRt

MILLISECONDS = {"fp16": 3.0, "int8-budget-50": 2.0, "int8": 1.0}


@pytest.fixture(autouse=True)
def library() -> Iterator[FakeTensorRt]:
    with fake_nvidia() as (_, tensorrt):
        yield tensorrt


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Milliseconds of each engine's calls, made up, so that the same one is always the fastest."""
    taken = dict(MILLISECONDS)

    def seconds(bundles: Mapping[str, Bundle], _: object) -> dict[str, list[float]]:
        return {name: [taken[name] / 1e3] * 5 for name in bundles}

    monkeypatch.setattr(on_device, "seconds_in_turns", seconds)
    return taken


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def put_answers(bundle: Path, answers: object) -> None:
    content = json.dumps(answers).encode()
    (bundle / "answers.json").write_bytes(content)
    manifest = json.loads((bundle / "manifest.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"]["answers.json"] = {"sha256": digest, "bytes": len(content)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def fail_to_build(patch: pytest.MonkeyPatch, *names: str) -> None:
    graphs = {noisy_model(name).SerializeToString() for name in names}
    usual = FakeBuilder.build_serialized_network

    def build(self: FakeBuilder, network: FakeNetwork, config: FakeConfig) -> bytes | None:
        if network.graph in graphs:
            self.logger.log(
                1, "[builder.cpp::run] Error Code 10: Could not find any implementation"
            )
            return None
        return usual(self, network, config)

    patch.setattr(FakeBuilder, "build_serialized_network", build)


def test_the_fastest_is_kept_alone_and_all_are_told(
    tmp_path: Path, times: dict[str, float]
) -> None:
    del times
    before = write_open(tmp_path / "b")

    build_fastest(before)

    built = Bundle.load(tmp_path / "b")
    manifest, choice = built.manifest, built.manifest.choice
    assert choice is not None
    assert (choice.chosen, manifest.answers) == ("int8", "answers.json")
    assert (manifest.model, manifest.precision) == ("model-int8.onnx", "int8")
    assert set(manifest.files) == {
        "answers.json",
        "model-int8.onnx",
        "labels.json",
        "sbom.cdx.json",
        "engine-sm87-test-gpu.plan",
    }
    assert [each.latency.median for each in choice.contenders if each.latency] == [
        pytest.approx(each / 1e3) for each in (3, 2, 1)
    ]
    assert [each.loss for each in choice.contenders] == [
        each.loss for each in before.manifest.choice.contenders
    ]
    checked = manifest.engines[-1].check
    assert checked is not None
    assert (checked.holds, checked.batch_sizes) == (True, (1, 2, 3, 4, 5))
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    with EngineRunner.load(tmp_path / "b") as run:
        np.testing.assert_allclose(run.infer(pixels), truth(noisy_model("int8"), pixels), rtol=1e-4)
    build_engine(built, BuildOptions(batch=BatchRange(1, 1, 2)))
    again = Bundle.load(tmp_path / "b").manifest
    assert again.choice == choice
    assert again.engines[-1].batch == BatchRange(1, 1, 2)


def test_of_those_that_are_as_fast_the_one_that_loses_least(
    tmp_path: Path, times: dict[str, float]
) -> None:
    times.update(dict.fromkeys(times, 1.0))
    choice = build_fastest(write_open(tmp_path / "b")).manifest.choice
    assert choice is not None
    assert choice.chosen == "fp16"


def test_the_bill_of_materials_counts_on(tmp_path: Path, times: dict[str, float]) -> None:
    del times
    before = json.loads(write_open(tmp_path / "b").read("sbom.cdx.json"))

    text = build_fastest(Bundle.load(tmp_path / "b")).read("sbom.cdx.json").decode()

    after = json.loads(text)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert before["metadata"]["component"]["name"] == "b0 for tensorrt in fp16 or int8"
    assert after["metadata"]["component"]["name"] == "b0 for tensorrt in int8"
    assert after["serialNumber"] == before["serialNumber"]
    assert (before.get("version", 1), after["version"]) == (1, 2)
    files = sorted(each["name"] for each in after["components"] if each["type"] == "file")
    assert files == ["answers.json", "engine-sm87-test-gpu.plan", "labels.json", "model-int8.onnx"]
    assert len(after["components"]) == len(before["components"]) - 2 + 1


def test_one_that_does_not_build_is_told_and_the_others_go_on(
    tmp_path: Path, times: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    del times
    fail_to_build(monkeypatch, "int8")
    choice = build_fastest(write_open(tmp_path / "b")).manifest.choice
    assert choice is not None
    assert choice.chosen == "int8-budget-50"
    assert choice.contenders[2].latency is None
    assert "Could not find any implementation" in str(choice.contenders[2].problem)


def test_the_name_of_a_graph_leads_nowhere(tmp_path: Path, times: dict[str, float]) -> None:
    other = write_open(tmp_path / "other").path
    before = contents(other)
    names = {"int8-budget-50": "../made", "int8": str(other)}
    times.update({names[name]: taken for name, taken in MILLISECONDS.items() if name in names})
    bundle = write_open(tmp_path / "b").path
    manifest = json.loads((bundle / "manifest.json").read_text())
    for each in manifest["choice"]["contenders"]:
        each["name"] = names.get(each["name"], each["name"])
    (bundle / "manifest.json").write_text(json.dumps(manifest))

    built = build_fastest(Bundle.load(bundle)).manifest

    assert contents(other) == before
    assert {each.name for each in tmp_path.iterdir()} == {"b", "other", "b.timing-cache"}
    assert built.choice is not None
    assert [each.problem for each in built.choice.contenders] == [None, None, None]
    assert built.choice.chosen == str(other)


def test_an_engine_that_answers_otherwise_than_its_graph_is_not_kept(
    tmp_path: Path, times: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    del times
    graph, usual = noisy_model("int8").SerializeToString(), FakeBuilder.build_serialized_network

    def without_bias(self: FakeBuilder, network: FakeNetwork, config: FakeConfig) -> bytes | None:
        if network.graph == graph:
            model = noisy_model("int8")
            (bias,) = (each for each in model.graph.initializer if each.name == "bias")
            bias.raw_data = bytes(len(bias.raw_data))
            network.graph = model.SerializeToString()
        return usual(self, network, config)

    monkeypatch.setattr(FakeBuilder, "build_serialized_network", without_bias)
    build_fastest(write_open(tmp_path / "b"))
    choice = Bundle.load(tmp_path / "b").manifest.choice
    assert choice is not None
    assert choice.chosen == "int8-budget-50"
    problem = str(choice.contenders[2].problem)
    assert problem.startswith(f"{tmp_path / 'b'}: the engine answers otherwise than exported")
    assert "off at a batch of 1 (root mean square), at most" in problem


def test_where_none_builds_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_to_build(monkeypatch, *NOISE)
    write_open(tmp_path / "b")
    before = contents(tmp_path / "b")

    assert command("build", tmp_path / "b", "--quiet") == 1

    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert "none of its graphs could be built: fp16: TensorRT 10.3.0.30 cannot build" in told.err
    assert contents(tmp_path / "b") == before


def test_a_limit_on_the_time_keeps_what_is_there(
    tmp_path: Path, times: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    del times
    write_open(tmp_path / "b")
    before = contents(tmp_path / "b")
    assert command("build", tmp_path / "b", "--max-latency", 0.5) == 1
    assert "the fastest, int8, takes 1 ms, above the 0.5 ms allowed" in capsys.readouterr().err
    assert contents(tmp_path / "b") == before
    assert command("build", tmp_path / "b", "--max-latency", 1.5) == 0
    assert command("build", tmp_path / "b", "--max-latency", 1.5) == 2
    assert "--max-latency goes with a bundle of several graphs" in capsys.readouterr().err


def test_a_limit_on_the_time_is_no_matter_of_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FP16 is as fast but for chance, loses less, and takes longer than is allowed."""
    seconds = {
        "fp16": [1.1e-3] * 10,
        "int8-budget-50": [3e-3] * 10,
        "int8": [1e-3] * 6 + [1.3e-3] * 4,
    }
    monkeypatch.setattr(on_device, "seconds_in_turns", lambda *_: seconds)
    for allowed, chosen in ((None, "fp16"), (1.1e-3, "fp16"), (1.05e-3, "int8")):
        choice = build_fastest(write_open(tmp_path / "b"), max_seconds=allowed).manifest.choice
        assert choice is not None
        assert choice.chosen == chosen


def test_ctrl_c_changes_nothing(tmp_path: Path, times: dict[str, float]) -> None:
    del times
    bundle = write_open(tmp_path / "b")
    before = contents(tmp_path / "b")

    def interrupt(stage: str, _name: str | None) -> None:
        if stage == "time":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_fastest(bundle, on_stage=interrupt)
    assert contents(tmp_path / "b") == before


def test_a_bundle_that_was_made_meanwhile_stays(tmp_path: Path, times: dict[str, float]) -> None:
    del times
    bundle, made = write_open(tmp_path / "b"), dict[str, bytes]()

    def make(stage: str, _name: str | None) -> None:
        if stage == "time":
            write_open(tmp_path / "b", variant="b3")
            made.update(contents(tmp_path / "b"))

    with pytest.raises(BundleError, match="was replaced while it was built from"):
        build_fastest(bundle, on_stage=make)
    assert contents(tmp_path / "b") == made


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_what_is_printed(
    target: str, tmp_path: Path, times: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    del times
    write_open(tmp_path / "b", target)
    capability = ("--compute-capability", "8.7") if target == "tensorrt-rtx" else ()
    assert command("build", tmp_path / "b", *capability) == 0
    told = capsys.readouterr()
    for name in NOISE:
        assert f"│ {name}" in told.out
    assert "int8: none is faster here but for chance" in told.out
    assert "building the engine of int8-budget-50" in told.err


def test_the_json_has_all_times_and_losses(
    tmp_path: Path, times: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    del times
    write_open(tmp_path / "b")
    assert command("build", tmp_path / "b", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["choice"]["chosen"] == "int8"
    assert [each["latency"]["median"] for each in document["choice"]["contenders"]] == [
        0.003,
        0.002,
        0.001,
    ]
    assert document["file"] == "engine-sm87-test-gpu.plan"


def test_the_times_are_of_the_batch_that_was_asked_for(tmp_path: Path) -> None:
    built = build_fastest(write_open(tmp_path / "b"), BuildOptions(batch=BatchRange(1, 3, 3)))
    assert built.manifest.engines[-1].batch == BatchRange(1, 3, 3)
    assert built.manifest.batch == BATCH
    choice = built.manifest.choice
    assert choice is not None
    assert {each.latency.rounds for each in choice.contenders if each.latency} == {100}


def test_a_signed_one_is_signed_anew_or_refused(tmp_path: Path, times: dict[str, float]) -> None:
    del times
    private, public = write_keys(tmp_path, "maker")
    bundle = write_open(tmp_path / "b")
    sign_bundle(bundle.path, SigningKey(private))
    with pytest.raises(UsageError, match="is signed"):
        build_fastest(bundle)
    build_fastest(bundle, key=SigningKey(private))
    Bundle.load(bundle.path, trusted=TrustedKey(public))


def test_without_a_gpu_no_time_can_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: FakeTensorRt
) -> None:
    from effnet_edge.runtime.tensorrt import gpu

    monkeypatch.setattr(gpu, "find_gpu", lambda _number: None)
    with pytest.raises(BackendError, match="there is no NVIDIA GPU here"):
        build_fastest(write_open(tmp_path / "b", "tensorrt-rtx"))
    assert library.configs == []


def test_the_answers_of_another_bundle_are_refused(tmp_path: Path, times: dict[str, float]) -> None:
    del times
    bundle = write_open(tmp_path / "b")
    document = json.loads(bundle.read("answers.json"))
    allowed = document["allowed"]
    allowed["model-int8.onnx"] = [1.0, 2.0]
    del allowed["model-fp16.onnx"]
    allowed["model-int8-budget-50.onnx"] = ["nothing"]
    put_answers(bundle.path, document)
    with pytest.raises(GateError, match=r"has no answers to 4 pictures for model-fp16\.onnx"):
        build_fastest(Bundle.load(bundle.path))
