"""A bundle of several graphs: its manifest is consistent, and who cannot use it says what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from bundle_files import edit, refusal
from click.testing import CliRunner
from open_bundles import NOISE, write_open
from signing_keys import write_keys

from effnet_edge.bundle import Bundle, Manifest
from effnet_edge.bundle.signing import SigningKey, TrustedKey
from effnet_edge.bundle.writing import sign_bundle
from effnet_edge.cli.common import Settings
from effnet_edge.cli.main import cli
from effnet_edge.errors import BundleError, UsageError
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ELSEWHERE = ["../outside", "/etc/passwd", "manifest.json", "", "none"]


@pytest.fixture
def opened(tmp_path: Path) -> Path:
    return write_open(tmp_path / "b").path


def contender(document: dict[str, Any], index: int) -> dict[str, Any]:
    found: dict[str, Any] = document["choice"]["contenders"][index]
    return found


def test_it_is_what_was_written_and_tells_the_least_lossy_as_its_own(opened: Path) -> None:
    manifest = Bundle.load(opened).manifest
    assert Manifest.from_json(manifest.to_json(), "again") == manifest
    assert manifest.is_open
    assert (manifest.model, manifest.precision) == ("model-fp16.onnx", "fp16")
    assert manifest.precisions == ["fp16", "int8"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_no_name_of_a_graph_leads_elsewhere(opened: Path, name: str) -> None:
    edit(opened, lambda d: contender(d, 1)["graph"].update(model=name))
    assert "is not among the files" in refusal(opened)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_nor_that_of_their_answers(opened: Path, name: str) -> None:
    edit(opened, lambda d: d.update(answers=name))
    assert "is not among the files" in refusal(opened)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda d: d.update(model="model-int8.onnx"), "the first graph is the model"),
        (lambda d: d.update(precision="int8"), "the first graph is the model"),
        (lambda d: d.update(parity=[]), "the first graph is the model"),
        (lambda d: contender(d, 1).update(name="fp16"), "names a graph twice"),
        (lambda d: contender(d, 1)["graph"].update(model="model-int8.onnx"), "a graph twice"),
        (lambda d: contender(d, 1).update(graph=None), "needs a graph of each"),
        (lambda d: d.update(answers=None), "choice: an open one needs answers"),
        (lambda d: d.update(answers="none.json"), "answers: 'none.json' is not among the files"),
        (lambda d: d["choice"].update(chosen="int8"), "has graphs besides"),
        (lambda d: d["choice"].update(more=1), "choice"),
        (lambda d: contender(d, 0).update(more=1), "choice"),
        (lambda d: contender(d, 0).pop("loss"), "choice"),
        (lambda d: contender(d, 0)["graph"].update(more=1), "choice"),
        (lambda d: d["choice"]["contenders"].clear(), "choice"),
        (
            lambda d: contender(d, 0)["loss"]["measures"].update(kl={"value": "NaN"}),
            "choice",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(
    opened: Path, change: Callable[[dict[str, Any]], object], what: str
) -> None:
    edit(opened, change)
    assert what in refusal(opened)


@pytest.mark.parametrize("part", ["loss", "graph"])
def test_no_graph_of_it_failed(opened: Path, part: str) -> None:
    def break_limit(document: dict[str, Any]) -> None:
        last = contender(document, 2)
        stage = last["loss"] if part == "loss" else {**last["loss"], "stage": "engine"}
        stage["measures"]["kl"] = {"value": 9.0, "at_most": 0.01}
        if part == "graph":
            last["graph"]["parity"] = [stage]

    edit(opened, break_limit)
    assert "its kl of 9 breaks its own limit" in refusal(opened)


@pytest.mark.parametrize("chosen", ["int8", "another"])
def test_one_that_was_chosen_was_timed(opened: Path, chosen: str) -> None:
    def close(document: dict[str, Any]) -> None:
        document["choice"].update(chosen=chosen)
        for each in document["choice"]["contenders"]:
            each["graph"] = None

    edit(opened, close)
    assert "the one that was chosen was not timed" in refusal(opened)


def test_a_measure_that_is_no_number_is_not_written(opened: Path) -> None:
    manifest = Bundle.load(opened).manifest
    text = manifest.to_json().replace("0.005", "1e999")
    with pytest.raises(BundleError, match="number is too large"):
        Manifest.from_json(text, "m")


@pytest.mark.parametrize("name", [f"model-{each}.onnx" for each in NOISE] + ["answers.json"])
def test_each_file_is_checked_and_signed_for(opened: Path, tmp_path: Path, name: str) -> None:
    private, public = write_keys(tmp_path, "maker")
    sign_bundle(opened, SigningKey(private))
    Bundle.load(opened, trusted=TrustedKey(public))
    content = (opened / name).read_bytes()
    (opened / name).write_bytes(content[:-1] + b"x")
    assert f"{name}: is not the file that was exported" in refusal(opened)


@pytest.mark.parametrize(
    "asked",
    [
        "predict {bundle} {bundle}/model-int8.onnx",
        "bench {bundle}",
        "parity {bundle}",
        "deploy {bundle} --for triton -o {bundle}-models",
        "sensitivity {bundle}",
        "calibration diff {bundle} {bundle}",
    ],
)
def test_a_command_that_needs_one_graph_says_what_to_do(opened: Path, asked: str) -> None:
    arguments = asked.format(bundle=opened).split()
    result = CliRunner().invoke(cli, arguments, obj=Settings(), standalone_mode=False)
    assert isinstance(result.exception, UsageError)
    assert str(result.exception) == (
        f"{opened}: carries 3 graphs (fp16, int8-budget-50, int8), of which the device keeps the "
        f"fastest: run effnet-edge build {opened} there first"
    )


def test_no_runner_builds_one_by_itself(opened: Path) -> None:
    with pytest.raises(UsageError, match="carries 3 graphs"):
        EngineRunner.load(opened, rebuild=True)


def test_info_and_verify_show_the_graphs(opened: Path) -> None:
    def told(*arguments: str) -> str:
        return CliRunner().invoke(cli, [*arguments, str(opened)], obj=Settings()).stdout

    shown = told("info")
    assert "tensorrt, fp16 or int8" in shown
    for name in NOISE:
        assert f"{name} is it" in shown
    assert "0.005 nats ≤ 0.01 nats" in shown
    document = json.loads(told("--json", "info"))["manifest"]["choice"]
    assert [each["name"] for each in document["contenders"]] == list(NOISE)
    verified = told("verify")
    assert "sound" in verified
    assert "effnet-edge build makes it on the device" in verified
