"""A plan carried out with real jobs: what is wrong is named with its node, what is done is kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from fake_clusters import FakeCluster, for_real
from fleet_bundles import write_fleet, write_plan, wrong_model
from gpu_or_fake import fake_nvidia
from signing_keys import write_keys
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.bundle import Bundle, content
from effnet_edge.errors import EffnetEdgeError, UsageError
from effnet_edge.fleet.campaign import Campaign
from effnet_edge.fleet.journal import Journal
from effnet_edge.fleet.node import node_name
from effnet_edge.fleet.package import Package
from effnet_edge.fleet.page import headline
from effnet_edge.fleet.plan import read_plan
from effnet_edge.fleet.running import Lost, Run
from effnet_edge.machine import Gpu
from effnet_edge.pictures.sets import ImageSet
from effnet_export.references import Questions

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO

    from effnet_edge.fleet.results import Row

KINDS = {"here": 2}


def carry_out(plan: Path, cluster: FakeCluster, retries: int = 0) -> tuple[Campaign, list[Row]]:
    checked = read_plan(plan)
    folder = plan.parent / "kept"
    pictures = ImageSet.from_folder(plan.parent / "pictures")
    questions = Questions(lambda _: pictures, plan.parent / "tiny.answers")
    campaign = Campaign(checked, Journal(folder), questions.of)
    Run(cluster, retries, campaign.done, lambda *_: None).run(campaign.jobs())
    return campaign, campaign.rows()


def states(rows: list[Row]) -> dict[str, str]:
    return {row.bundle: row.state for row in rows}


def altered(change: Callable[[Package], Package]) -> Callable[[Package], bytes | Lost]:
    return lambda order: for_real(change(order))


def test_sound_bundles_pass_and_bring_manifest_report_and_times_home(tmp_path: Path) -> None:
    campaign, rows = carry_out(write_fleet(tmp_path), FakeCluster(KINDS))
    assert states(rows) == {"one": "passed", "two": "passed"}
    document = campaign.document()
    assert document["passed"] is True
    for job in document["jobs"]:
        result = job["result"]
        assert result["manifest"]["target"] == "onnxruntime"
        (candidate,) = result["parity"]["candidates"]
        assert candidate["top1_agreement"] == 1.0
        assert {each["size"] for each in candidate["batch_sizes"]} >= {1, 2}
        assert result["timing"]["timing"]["runs"] == 2
        assert result["node"]["name"] == node_name()
    assert json.loads(json.dumps(document)) == document


def test_a_wrong_bundle_is_caught_and_named_with_its_node(tmp_path: Path) -> None:
    plan = write_fleet(tmp_path, ("one",))
    write_bundle(tmp_path / "wrong", "onnxruntime", wrong_model())
    campaign, rows = carry_out(write_plan(tmp_path, ("one", "wrong")), FakeCluster(KINDS))
    assert states(rows) == {"one": "passed", "wrong": "failed"}
    assert rows[1].node == node_name()
    assert any("below" in line for line in rows[1].remarks)
    assert campaign.document()["passed"] is False
    assert plan.exists()


@pytest.mark.parametrize("name", ["model.onnx", "labels.json", "manifest.json"])
def test_a_file_that_changed_on_its_way_is_found_on_the_node(tmp_path: Path, name: str) -> None:
    def change(order: Package) -> Package:
        content = order.files[f"bundle/{name}"]
        return replace(order, files={**order.files, f"bundle/{name}": content[:-1] + b"?"})

    _, (row,) = carry_out(write_fleet(tmp_path, ("one",)), FakeCluster(KINDS, altered(change)))
    assert row.state == "error"
    assert row.node == node_name()
    assert row.remarks[0].startswith(f"one/{name}: is not the")


def test_answers_that_changed_on_their_way_are_found_on_the_node(tmp_path: Path) -> None:
    def change(order: Package) -> Package:
        name = "answers/reference.answers"
        content = order.files[name]
        return replace(order, files={**order.files, name: content[:-6] + b"??" + content[-4:]})

    _, (row,) = carry_out(write_fleet(tmp_path, ("one",)), FakeCluster(KINDS, altered(change)))
    assert "reference.answers is damaged at answer" in row.remarks[0]


def test_a_node_of_another_version_says_so(tmp_path: Path) -> None:
    def change(order: Package) -> Package:
        return replace(order, document={**order.document, "version": "9.9"})

    _, (row,) = carry_out(write_fleet(tmp_path, ("one",)), FakeCluster(KINDS, altered(change)))
    assert "install the same on both" in row.remarks[0]


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    plan = write_fleet(tmp_path, ("one", "two", "three"))
    answered: list[Package] = []

    def dying(order: Package) -> bytes | Lost:
        answered.append(order)
        return for_real(order) if len(answered) == 1 else Lost("gone")

    _, rows = carry_out(plan, FakeCluster({"here": 1}, dying))
    assert sorted(states(rows).values()) == ["error", "error", "passed"]
    second = FakeCluster(KINDS)
    campaign, rows = carry_out(plan, second)
    assert set(states(rows).values()) == {"passed"}
    assert (campaign.kept, len(second.started)) == (1, 2)
    third = FakeCluster(KINDS)
    assert carry_out(plan, third)[0].kept == 3
    assert third.started == []


def test_another_bundle_limit_or_picture_is_asked_again(tmp_path: Path) -> None:
    plan = write_fleet(tmp_path, ("one",))
    carry_out(plan, FakeCluster(KINDS))

    def asked_again() -> bool:
        cluster = FakeCluster(KINDS)
        carry_out(plan, cluster)
        return bool(cluster.started)

    assert not asked_again()
    plan.write_text(plan.read_text().replace("min-sqnr = 60", "min-sqnr = 61"))
    assert asked_again()
    (tmp_path / "pictures/0.png").unlink()
    assert asked_again()
    write_bundle(tmp_path / "one", "onnxruntime", wrong_model())
    assert asked_again()
    assert not asked_again()


def test_a_file_that_is_damaged_since_is_asked_again_and_told(tmp_path: Path) -> None:
    plan = write_fleet(tmp_path, ("one",))
    carry_out(plan, FakeCluster(KINDS))
    model = tmp_path / "one/model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"?")  # the size and the manifest stay
    _, (row,) = carry_out(plan, FakeCluster(KINDS))
    assert row.state == "error"
    assert row.remarks[0].startswith("one/model.onnx: is not the")


def test_a_signature_that_is_gone_since_is_asked_for_again(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "key")
    write_fleet(tmp_path, ("one",))
    _sign(tmp_path / "one", private)
    plan = write_plan(tmp_path, ("one",), f'trusted = "{public.name}"')
    _, (row,) = carry_out(plan, FakeCluster(KINDS))
    assert row.state == "passed"
    (tmp_path / "one/manifest.sig").unlink()
    _, (row,) = carry_out(plan, FakeCluster(KINDS))
    assert "is not signed" in row.remarks[0]


def test_what_an_interrupted_run_did_not_come_to_is_told(tmp_path: Path) -> None:
    plan = read_plan(write_fleet(tmp_path, ("one", "two")))

    def interrupted(_: object) -> NoReturn:
        raise KeyboardInterrupt

    campaign = Campaign(plan, Journal(tmp_path / "kept"), interrupted)
    with pytest.raises(KeyboardInterrupt):
        campaign.jobs()
    assert states(campaign.rows()) == {"one": "error", "two": "error"}
    assert headline(campaign.rows()) == "2 of 2 jobs NOT DONE"
    assert campaign.document()["passed"] is False


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": "other"}', '{"key": "%s"}'])
def test_a_damaged_line_of_the_journal_is_done_again(tmp_path: Path, damage: str) -> None:
    plan = write_fleet(tmp_path, ("one",))
    carry_out(plan, FakeCluster(KINDS))
    (kept,) = (tmp_path / "kept/jobs").iterdir()
    kept.write_text(damage.replace("%s", kept.stem))
    cluster = FakeCluster(KINDS)
    _, rows = carry_out(plan, cluster)
    assert cluster.started == [("one", "here")]
    assert states(rows) == {"one": "passed"}


def test_a_result_that_cannot_be_read_is_an_error_and_not_kept(tmp_path: Path) -> None:
    def change(order: Package) -> bytes:
        result = Package.unpack(for_real(order), "")
        result.document["parity"]["candidates"][0]["checks"] = "<script>"
        return result.pack()

    _, (row,) = carry_out(write_fleet(tmp_path, ("one",)), FakeCluster(KINDS, change))
    assert row.state == "error"
    assert "cannot be read" in row.remarks[0]
    assert list((tmp_path / "kept/jobs").iterdir()) == []


def test_a_bundle_of_another_network_than_the_answers_is_its_own_row(tmp_path: Path) -> None:
    from effnet_edge.model.provenance import Weights

    write_fleet(tmp_path, ("one",))
    other = Weights("other", "made up", "1" * 64, None)
    write_bundle(tmp_path / "other", "onnxruntime", tiny_model(), weights=other)
    _, rows = carry_out(write_plan(tmp_path, ("one", "other")), FakeCluster(KINDS))
    assert states(rows) == {"one": "passed", "other": "error"}
    assert "answers of another network" in rows[1].remarks[0]


def test_a_signature_is_asked_for_on_the_node(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "key")
    write_fleet(tmp_path, ("one", "signed"))
    _sign(tmp_path / "signed", private)
    plan = write_plan(tmp_path, ("one", "signed"), f'trusted = "{public.name}"')
    _, rows = carry_out(plan, FakeCluster(KINDS))
    assert states(rows) == {"one": "error", "signed": "passed"}
    assert "is not signed" in rows[0].remarks[0]


def _sign(bundle: Path, private: Path) -> None:
    from effnet_edge.bundle.signing import SigningKey
    from effnet_edge.bundle.writing import sign_bundle

    sign_bundle(bundle, SigningKey(private))


@pytest.mark.parametrize("signed", [False, True])
def test_the_engine_of_another_gpu_is_built_on_the_node(tmp_path: Path, signed: bool) -> None:
    private, _ = write_keys(tmp_path, "key")
    plan = write_fleet(tmp_path, ())
    with fake_nvidia():
        write_bundle(tmp_path / "trt", "tensorrt", tiny_model())
    if signed:
        _sign(tmp_path / "trt", private)
    before = (tmp_path / "trt/manifest.json").read_bytes()
    plan = write_plan(tmp_path, ("trt",))
    with fake_nvidia(gpu_here=Gpu("Other GPU", "8.9", "12.6")):
        campaign, (row,) = carry_out(plan, FakeCluster(KINDS))
    assert row.state == "passed", row.remarks
    assert row.engine.endswith("for Other GPU")
    engines = campaign.document()["jobs"][0]["result"]["manifest"]["engines"]
    assert [each["compute_capability"] for each in engines] == [["8.7"], ["8.9"]]
    assert (tmp_path / "trt/manifest.json").read_bytes() == before


def test_a_sweep_exports_then_checks_and_a_failing_export_is_a_row(tmp_path: Path) -> None:
    write_fleet(tmp_path, ("b0-onnxruntime-fp32",))
    exported = tmp_path / "b0-onnxruntime-fp32"
    plan = write_plan(tmp_path, ())
    lines = '[[sweep]]\nvariants = ["b0", "b1"]\ntargets = ["onnxruntime"]\n'
    plan.write_text(plan.read_text() + lines)

    def answer(order: Package) -> bytes:
        document: dict[str, Any] = {"key": order.document["key"], "node": "builder"}
        if order.document["task"] == "check":
            return for_real(order)
        if order.document["arguments"][0] == "b1":
            return Package({**document, "error": "the budget cannot be met"}).pack()
        files = {f"bundle/{file.name}": file.read_bytes() for file in exported.iterdir()}
        return Package(document, files).pack()

    _, rows = carry_out(plan, FakeCluster(KINDS, answer))
    told = {(row.bundle, row.task): row for row in rows}
    assert told["b0-onnxruntime-fp32", "check"].state == "passed"
    assert told["b1-onnxruntime-fp32", "export"].remarks == ("the budget cannot be met",)
    again = FakeCluster(KINDS, answer)
    carry_out(plan, again)
    assert again.started == [("b1-onnxruntime-fp32", "here")]
    model = tmp_path / "kept/bundles/b0-onnxruntime-fp32/model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    again = FakeCluster(KINDS, answer)
    carry_out(plan, again)
    assert ("b0-onnxruntime-fp32", "here") in again.started
    assert Bundle.load(model.parent)
    (tmp_path / "labels.txt").write_text("cat")
    plan.write_text(f"{plan.read_text()}options = ['--labels', '{tmp_path}/labels.txt']\n")
    for names, started in (("cat", 2), ("cat", 1), ("dog", 2)):
        (tmp_path / "labels.txt").write_text(names)
        again = FakeCluster(KINDS, answer)
        carry_out(plan, again)
        assert len(again.started) == started  # the one that fails is always tried


def swept(folder: Path) -> tuple[Path, FakeCluster]:
    """A plan of one sweep, its nodes, and what they exported in a first run."""
    write_fleet(folder, ("b0-onnxruntime-fp32",))
    exported = folder / "b0-onnxruntime-fp32"
    plan = write_plan(folder, ())
    nodes = '[[node]]\nkind = "a"\n[[node]]\nkind = "b"\nssh = "host"\n'
    plan.write_text(
        f'{plan.read_text()}{nodes}[[sweep]]\nvariants = ["b0"]\ntargets = ["onnxruntime"]\n'
        'on = "a"\n'
    )

    def answer(order: Package) -> bytes:
        if order.document["task"] == "check":
            return for_real(order)
        files = {f"bundle/{file.name}": file.read_bytes() for file in exported.iterdir()}
        return Package({"key": order.document["key"], "node": "builder"}, files).pack()

    cluster = FakeCluster({"a": 1, "b": 1}, answer)
    carry_out(plan, cluster)
    return plan, cluster


def test_a_file_of_a_sweeps_bundle_is_hashed_once_for_all_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    digest = content._digest

    def counted(file: FileIO) -> str:
        hashed.append(Path(str(file.name)).name)
        return digest(file)

    plan, cluster = swept(tmp_path)
    before = list(cluster.started)
    monkeypatch.setattr(content, "_digest", counted)
    carry_out(plan, cluster)
    assert cluster.started == before
    assert hashed.count("model.onnx") == 1


def test_a_sweeps_bundle_that_is_gone_is_exported_again(tmp_path: Path) -> None:
    plan, cluster = swept(tmp_path)
    made = tmp_path / "kept/bundles/b0-onnxruntime-fp32"
    shutil.rmtree(made)
    _, rows = carry_out(plan, cluster)
    assert [(row.task, row.state) for row in rows] == [("check", "passed")] * 2
    assert Bundle.load(made)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"-o .*file/kept: cannot be written"):
        Journal(tmp_path / "file" / "kept")


def test_a_disk_that_is_full_is_a_failed_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    plan = write_fleet(tmp_path, ("one",))
    monkeypatch.setattr("effnet_edge.fleet.journal.write_whole", full)
    with pytest.raises(EffnetEdgeError, match="No space left on device") as refused:
        carry_out(plan, FakeCluster(KINDS))
    assert refused.value.exit_code == 1
