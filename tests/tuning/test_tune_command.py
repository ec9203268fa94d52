"""`effnet-edge tune`: rows for all that was tried, the bundle asked for, and nothing half-done."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from click.testing import CliRunner
from tiny_bundles import PREPROCESSING
from tiny_tunes import TinyNetwork, exported, in_a_folder_with_photos, stand_in

from effnet_edge.bundle import Bundle
from effnet_edge.cli.common import Settings
from effnet_edge.cli.main import cli
from effnet_edge.errors import BackendError, EffnetEdgeError, GateError, UsageError
from effnet_edge.pictures.image import normalize, prepare
from effnet_edge.targets import TARGETS
from effnet_export.tuning import run
from effnet_export.tuning.candidates import CANDIDATES

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from effnet_export.pipeline import ExportResult
    from effnet_export.request import ExportRequest

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with pictures; what is temporary goes to `tmp` in it."""
    return in_a_folder_with_photos(tmp_path, monkeypatch)


def invoke(*options: object) -> Result:
    arguments = ["tune", "b0", "--calibration", "photos", *map(str, options)]
    return CliRunner().invoke(cli, arguments, obj=Settings(), standalone_mode=False)


def normalized(path: Path) -> torch.Tensor:
    return torch.from_numpy(normalize(prepare(path, PREPROCESSING)[None], PREPROCESSING))


def left(place: Path) -> set[str]:
    """What there is beside the pictures; nothing temporary ever."""
    assert not list((place / "tmp").iterdir())
    return {each.name for each in place.iterdir()} - {"photos", "tmp"}


def test_without_limits_it_is_the_default_and_all_are_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)

    result = invoke()

    assert result.exception is None
    assert left(place) == {"b0-openvino-tuned"}
    assert Bundle.load(place / "b0-openvino-tuned").manifest.precision == "int8"
    for name in ("fp32", "fp16", "int8-all-8-bit", "int8-budget-50", "int8-fast-90"):
        assert re.search(rf"^│ {name} +│", result.stdout, re.MULTILINE)
    assert "int8-budget-25, refused by a gate: the budget cannot be met" in result.stdout
    assert "int8, no limit was set: as export --int8: b0-openvino-tuned" in result.stdout
    assert f"3 of {len(CANDIDATES)}, int8" in result.stderr
    assert "timing many calls at once" in result.stderr
    assert "pictures/s" in result.stdout
    assert "Loss against PyTorch on 16 pictures held out of the 64 in photos\n" in result.stdout


def test_the_json_has_every_number_and_the_fastest_within_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    rows = {row["name"]: row for row in json.loads(invoke("--json").stdout)["candidates"]}
    allowed = rows["int8-fast-80"]["loss"]["kl"]
    assert rows["int8-fast-90"]["loss"]["kl"] > allowed

    result = invoke("--max-kl", allowed, "--max-latency", 7, "--json", "--quiet", "-o", "mine")

    document = json.loads(result.stdout)
    assert document["chosen"] in {"int8-fast-80", "int8-fast-90"}
    assert document["chosen"] == "int8-fast-80"  # as fast, and loses less
    assert document["limits"] == {"max_kl": allowed, "seconds": 0.007}
    assert document["bundle"] == str(place / "mine")
    assert document["baseline"] == "fp32"
    assert [row["name"] for row in document["candidates"]] == list(rows)
    latency = rows["fp16"]["latency"]
    assert latency == {
        "rounds": 3,
        "least": 0.015,
        "median": 0.015,
        "middle_half": [0.015, 0.015],
        "ratio": pytest.approx(0.75),
        "ratio_to_bundle": None,
    }
    assert set(document["frontier"]) <= set(rows) - {"int8-budget-25"}
    assert rows["int8-budget-25"]["loss"] is rows["int8-budget-25"]["latency"] is None
    assert rows["int8-budget-25"]["refused_by_gate"]
    written, made = Bundle.load(place / "mine").manifest, rows["int8-fast-80"]
    assert sum(each.bytes for each in written.files.values()) == made["bytes"]


def test_what_else_was_timed_stands_beside_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)

    result = invoke("--batch", "1:4:8", "--report", "page.html", "--json")

    page = (place / "page.html").read_text()
    for heading in ("pictures/s", "ms each, 1 a call", "ms each, 8 a call"):
        assert f"<th>{heading}</th>" in page
    beside = {row["name"]: row["beside"] for row in json.loads(result.stdout)["candidates"]}
    assert beside["fp16"] == {
        "images_per_second": pytest.approx(2e3 / 15),
        "seconds_per_image": {"1": pytest.approx(0.015), "8": pytest.approx(0.015)},
    }
    assert beside["int8-budget-25"] is None


def test_one_batch_and_no_streams_have_nothing_beside(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del place
    stand_in(monkeypatch)
    monkeypatch.setattr(run, "images_per_second", None)

    rows = json.loads(invoke("--target", "litert", "--json").stdout)["candidates"]

    assert rows[0]["beside"] == {"images_per_second": None, "seconds_per_image": {}}


def test_an_export_that_fails_is_a_row_and_not_the_end(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(request: ExportRequest, *others: object, **options: object) -> ExportResult:
        if request.directory.name == "fp32":
            raise BackendError(f"OpenVINO cannot {HOSTILE}")
        if request.directory.name == "fp16":
            raise OSError(28, "No space left on device")
        if request.directory.name == "int8-exact":
            torch.empty(1 << 60)
        if request.directory.name == "int8-fast-90":
            raise GateError("quantize changed the model: it is noise", "try --fp16")
        return exported(request, *others, **options)

    stand_in(monkeypatch, fails)

    result = invoke("--report", "page.html")

    assert result.exception is None
    assert f"fp32, failed: OpenVINO cannot {HOSTILE}" in result.stdout
    assert "No space left on device" in result.stdout
    assert "int8-exact, failed: there is not enough memory" in result.stdout
    assert (
        "int8-fast-90, refused by a gate: quantize changed the model: it is noise" in result.stdout
    )
    assert "--fp16" not in result.stdout  # an option of export
    assert left(place) == {"b0-openvino-tuned", "page.html"}
    page = (place / "page.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<circle") == len(CANDIDATES) - 5  # three fail and a gate refuses two


def test_where_all_exports_fail_the_first_error_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(request: ExportRequest, *_: object, **__: object) -> ExportResult:
        raise BackendError(f"no library for {request.directory.name}")

    stand_in(monkeypatch, fails)

    result = invoke()

    assert isinstance(result.exception, GateError)
    assert str(result.exception) == (
        f"none of {len(CANDIDATES)} candidates could be made: fp32: no library for fp32"
    )
    assert left(place) == set()


def test_where_none_keeps_the_limits_nothing_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)

    result = invoke("--max-latency", 1, "--report", "page.html")

    assert isinstance(result.exception, GateError)
    assert result.exception.exit_code == 1
    assert str(result.exception) == (
        "no candidate keeps 1 ms a call: of the nearest, int8-fast-80, 6 ms are above the 1 ms "
        "allowed: allow more"
    )
    assert "int8-fast-80" in result.stdout
    assert left(place) == set()


@pytest.mark.parametrize("candidate", ["fp32", "int8-fast-90"])
def test_ctrl_c_leaves_nothing(
    candidate: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(request: ExportRequest, *others: object, **options: object) -> ExportResult:
        result = exported(request, *others, **options)
        if request.directory.name == candidate:
            raise KeyboardInterrupt
        return result

    stand_in(monkeypatch, interrupted)

    assert invoke("--report", "page.html").exit_code != 0
    assert left(place) == set()


def test_a_bundle_that_is_there_is_only_replaced_if_asked(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    assert invoke("-o", "mine").exception is None
    before = (place / "mine" / "manifest.json").read_text()

    refused = invoke("-o", "mine", "--max-latency", 100)
    assert isinstance(refused.exception, UsageError)
    assert (place / "mine" / "manifest.json").read_text() == before

    assert invoke("-o", "mine", "--max-kl", 1e-5, "--force").exception is None
    assert Bundle.load(place / "mine").manifest.precision == "fp16"
    assert left(place) == {"mine"}


def test_the_page_draws_the_frontier_with_the_limits(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)

    result = invoke("--max-kl", 1e-4, "--max-latency", 16, "--report", "page.html")

    assert result.exception is None
    page = (place / "page.html").read_text()
    assert '<meta name="generator" content="effnet-edge tune">' in page
    assert page.count("<circle") == len(CANDIDATES) - 1
    assert page.count('class="limit"') == 2
    assert "the budget cannot be met: allow more" in page
    assert re.findall(r'(?:src|href)="', page) == []
    assert invoke("--report", "page.html", "--force").exception is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--target tensorrt --max-latency 1", "give it to `effnet-edge build` there"),
        ("--target tensorrt-rtx --report a.html", "see what `effnet-edge build` prints there"),
        ("--calibration table.json", "every candidate has a table of its own"),
        ("--max-drop 1", "--max-drop needs the class of every picture"),
        ("--max-nrmse 0.1", "--max-nrmse goes with --regression"),
        ("--regression --max-kl 1", "use --max-nrmse"),
        ("--features --max-kl 1", "--max-kl goes with classes"),
        ("--multi-label --max-drop 1", "use --max-kl"),
        ("--report page.txt", "must end in .html"),
        ("--report photos/000.png", "must end in .html"),
        ("-o photos", "exists and is not a bundle"),
    ],
)
def test_what_cannot_be_had_is_refused_before_the_work(
    options: str, says: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    (place / "table.json").write_text("{}")
    monkeypatch.setattr(run, "Judge", None)

    result = invoke(*options.split())

    assert isinstance(result.exception, EffnetEdgeError)
    assert re.search(re.escape(says), str(result.exception))
    assert result.exception.exit_code == 2


def test_a_drop_from_labels_of_another_model_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network itself is right on none of the pictures, so that no candidate could lose any."""
    stand_in(monkeypatch)
    network = TinyNetwork()
    paths = sorted((place / "photos").iterdir())
    answers = [int(network(normalized(path)).argmax()) for path in paths]

    def list_with(shift: int) -> None:
        rows = [
            f"photos/{path.name},{(answer + shift) % 5}"
            for path, answer in zip(paths, answers, strict=True)
        ]
        (place / "list.csv").write_text("\n".join(["path,class_index", *rows]))

    list_with(1)
    result = invoke("--calibration", "list.csv", "--max-drop", "1")
    assert isinstance(result.exception, UsageError)
    assert "--max-drop: torch is right on 0 of 16 pictures" in str(result.exception)
    assert left(place) == {"list.csv"}
    list_with(0)
    assert invoke("--calibration", "list.csv", "--max-drop", "100").exception is None


def test_a_library_that_is_missing_is_told_before_the_work(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    monkeypatch.setattr(run, "load", None)
    row = replace(TARGETS["litert"], library="not_installed")
    monkeypatch.setitem(TARGETS, "litert", row)

    result = invoke("--target", "litert")

    assert isinstance(result.exception, BackendError)
    assert "pip install 'effnet-edge[litert]'" in str(result.exception)
    assert left(place) == set()


def test_it_asks_for_pictures(place: Path) -> None:
    del place
    result = CliRunner().invoke(cli, ["tune", "b0"], obj=Settings(), standalone_mode=False)
    assert isinstance(result.exception, UsageError)
    assert "--calibration DIR" in str(result.exception)
