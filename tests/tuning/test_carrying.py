"""What a tune writes for TensorRT: the graphs within the limits that may be the fastest there."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundles import manifest
from tiny_tunes import NOISE, in_a_folder_with_photos, stand_in
from tuning_outcomes import tried

from effnet_edge.bundle import Bundle, FileRecord
from effnet_edge.cli.common import Settings
from effnet_edge.cli.main import cli
from effnet_edge.errors import GateError
from effnet_edge.parity import Gate
from effnet_edge.parity.report.loss import divergence
from effnet_edge.runtime.known_answers import known_pictures, read_answers
from effnet_export.stand_ins import simulation
from effnet_export.tuning import run
from effnet_export.tuning.carrying import MOST_IN_INT8, to_carry
from effnet_export.tuning.limits import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from effnet_edge.bundle import Manifest
    from effnet_export.tuning.outcome import Tried

LOSSES = [tried("any", noise, 1.0) for noise in (0.0, 0.01, 0.05, 0.1, 0.2, math.nan)]


def described(precision: str, graph: str) -> Manifest:
    return manifest(precision=precision, files={"model.xml": FileRecord(graph, 1)})


@st.composite
def candidates(draw: st.DrawFn) -> tuple[list[Tried], dict[str, Manifest]]:
    graph = st.integers(0, len(LOSSES) - 1)
    row = st.tuples(graph, st.sampled_from(["fp32", "fp16", "int8"]))
    rows = draw(st.lists(row, min_size=1, max_size=8))
    made = [replace(LOSSES[index], name=f"candidate {at}") for at, (index, _) in enumerate(rows)]
    return made, {
        each.name: described(precision, f"{precision}{index}")
        for each, (index, precision) in zip(made, rows, strict=True)
    }


def lost(each: Tried) -> float:
    assert each.loss is not None
    return divergence(each.loss)


@given(candidates(), st.sampled_from([None, 0.0, 1e-3, 1e-2, 1.0]))
def test_what_is_carried(
    rows: tuple[list[Tried], dict[str, Manifest]], allowed: float | None
) -> None:
    made, manifests = rows
    limits = Limits(Gate(max_kl=allowed))
    within = [
        each
        for each in made
        if each.loss and math.isfinite(lost(each)) and not limits.loss_failures(each.loss)
    ]

    carried = to_carry(made, limits, manifests)

    assert all(each in within for each in carried)
    assert bool(carried) == bool(within)
    assert [lost(each) for each in carried] == sorted(lost(each) for each in carried)
    precisions = [manifests[each.name].precision for each in carried]
    assert precisions.count("int8") <= MOST_IN_INT8
    assert precisions.count("fp16") + precisions.count("fp32") <= 1
    graphs = [manifests[each.name].files["model.xml"] for each in carried]
    assert len({each.sha256 for each in graphs}) == len(graphs)
    for each in within:
        other = manifests[each.name]
        if other.precision != "int8" or other.files["model.xml"] in graphs:
            continue
        # Nothing in INT8 is left out that loses more, and so keeps less in 16 bit.
        in_int8 = [one for one in carried if manifests[one.name].precision == "int8"]
        assert all(lost(one) >= lost(each) for one in in_int8)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    in_a_folder_with_photos(tmp_path, monkeypatch)
    stand_in(monkeypatch)
    monkeypatch.setattr(run, "seconds_in_turns", None)
    return tmp_path


def invoke(*options: object) -> Result:
    usual = ["tune", "b0", "--target", "tensorrt-rtx", "--calibration", "photos"]
    arguments = [*usual, *map(str, options)]
    return CliRunner().invoke(cli, arguments, obj=Settings(), standalone_mode=False)


def test_the_bundle_has_the_graphs_and_their_answers(place: Path) -> None:
    result = invoke("--max-kl", 1)

    assert result.exception is None
    bundle = Bundle.load(place / "b0-tensorrt-rtx-tuned")
    choice = bundle.manifest.choice
    assert choice is not None
    assert [each.name for each in choice.contenders] == ["fp16", "int8-budget-50", "int8"]
    assert [each.precision for each in choice.contenders] == ["fp16", "int8", "int8"]
    losses = [each.loss.measures["kl"] for each in choice.contenders]
    assert [each.value for each in losses] == sorted(each.value for each in losses)
    assert {each.at_most for each in losses} == {1.0}
    assert {each.loss.images for each in choice.contenders} == {16}
    models = {f"model-{each.name}.onnx" for each in choice.contenders}
    assert set(bundle.manifest.files) == {*models, "answers.json", "sbom.cdx.json"}
    for each in choice.contenders:
        alone = bundle.with_one_graph(each)
        known = read_answers(alone)
        assert known is not None
        errors = known.errors(simulation(alone).infer(known_pictures(bundle.manifest)))
        assert 0 < errors <= known.allowed / 10 ** (6 / 20) * 1.001
    assert "fp16, int8-budget-50, int8: b0-tensorrt-rtx-tuned" in result.stdout
    assert "int8-budget-25, refused by a gate: the budget cannot be met" in result.stdout
    assert "left out: another may be faster" in result.stdout
    assert result.stderr.splitlines()[-1] == (
        "Next: on the device, effnet-edge build b0-tensorrt-rtx-tuned, which times them there and "
        "keeps the fastest"
    )
    assert not list((place / "tmp").iterdir())


def test_where_one_alone_is_within_it_is_as_exported(place: Path) -> None:
    result = invoke("--max-kl", 1e-5, "--json")
    document = json.loads(result.stdout)
    assert document["carried"] == ["fp16"]
    assert document["limits"] == {"max_kl": 1e-5}
    assert [each["name"] for each in document["candidates"]][:3] == ["fp32", "fp16", "int8"]
    manifest = Bundle.load(place / "b0-tensorrt-rtx-tuned").manifest
    assert manifest.choice is None
    assert manifest.precision == "fp16"


def test_where_none_is_within_nothing_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision in NOISE:
        monkeypatch.setitem(NOISE, precision, 0.05)
    result = invoke("--max-kl", 0)
    assert isinstance(result.exception, GateError)
    assert str(result.exception).startswith("no candidate keeps KL divergence ≤ 0 nats: of the")
    assert "allow more" in str(result.exception)
    assert {each.name for each in place.iterdir()} == {"photos", "tmp"}
