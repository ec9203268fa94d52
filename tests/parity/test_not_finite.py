"""NaN, equal (∞), −∞ and "not measured" through every view of a comparison."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from effnet_edge.bundle import Measured, StageParity
from effnet_edge.cli import parity_output
from effnet_edge.errors import UsageError
from effnet_edge.parity import Comparison, Gate
from effnet_edge.parity.inside.layers import LayerError
from effnet_edge.parity.measures.table import LIMITS, MEASURES, limited_measure
from effnet_edge.parity.report import build_document, changes
from effnet_edge.parity.report.charts import depth
from effnet_edge.parity.report.document import Circumstances, Document, Examined, worst_layers
from effnet_edge.parity.report.files import junit_xml, read_document, render_html, write_report
from effnet_edge.parity.study import Study

if TYPE_CHECKING:
    from pathlib import Path

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity import ParityResult

NAMES = ("nan", "equal", "infinite", "close")
TOLD = {"nan": "NaN", "equal": "∞ dB", "infinite": "−∞ dB"}


def answers(name: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    reference = rng.normal(0, 3, (20, 8)).astype(np.float32)
    candidate = reference.copy()
    if name == "nan":
        candidate[7, 3] = np.nan
    elif name == "infinite":
        candidate[7, 3] = np.inf
    elif name == "close":
        candidate += rng.normal(0, 0.01, candidate.shape).astype(np.float32)
    return reference, candidate


def compared(name: str, output: OutputKind = "single-label") -> ParityResult:
    comparison = Comparison("torch", name, "FP32", "INT8", output)
    comparison.update(*answers(name))
    return comparison.result("pictures")


def document_of(gate: Gate, *names: str) -> Document:
    examined = []
    for name in names:
        result = compared(name)
        study = Study(result, None, None, [])
        examined.append(Examined(study, gate.judge(result)))
    document = build_document(examined, Circumstances("effnet-edge parity", gate.describe()))
    for candidate in document["candidates"]:
        candidate["calibration_error"] = {"candidate": 0.0}
    return document


@pytest.fixture
def document() -> Document:
    return document_of(Gate(min_sqnr_db=20.0, max_kl=0.02), *NAMES)


def printed(renderable: object) -> str:
    stream = StringIO()
    Console(file=stream, width=250).print(renderable)
    return stream.getvalue()


def cells(text: str, row: str) -> list[str]:
    line = next(line for line in text.splitlines() if row in line)
    return [cell.strip() for cell in line.split("│")[2:-1]]


def test_the_terminal_tells_them_apart(document: Document) -> None:
    text = printed(parity_output._table(document))
    *three, close = cells(text, "SQNR")
    assert three == list(TOLD.values())
    assert close.endswith(" dB")
    assert cells(text, "top-1 drop") == ["not measured"] * len(NAMES)


def test_the_page_tells_them_apart(document: Document) -> None:
    table = render_html(document).split("<summary>All measures</summary>")[1].split("</table>")[0]
    heading, verdicts, *rows = (
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:]
    )
    told = {row[0].partition("<small>")[0]: row[1:] for row in rows}
    assert heading[1:] == list(NAMES)
    for at, name in enumerate(NAMES):
        assert told["SQNR"][at] == TOLD.get(name, told["SQNR"][at])
        assert told["top-1 drop"][at] == "not measured"
        assert (verdicts[1 + at] == "FAILED") == (name in ("nan", "infinite"))
    assert told["SQNR"][-1].endswith(" dB")


def test_junit_tells_them_apart(document: Document) -> None:
    suite = ElementTree.fromstring(junit_xml(document))
    for name, case in zip(NAMES, suite.iter("testcase"), strict=True):
        output = case.findtext("system-out") or ""
        assert f"SQNR: {TOLD.get(name, '')}" in output
        assert "top-1 drop: not measured" in output
        assert (case.find("failure") is not None) == (name in ("nan", "infinite"))
        assert case.find("skipped") is None


def test_json_tells_them_apart(document: Document, tmp_path: Path) -> None:
    _, path, _ = write_report(document, tmp_path / "report.html")
    json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    *three, close = read_document(path)["candidates"]
    assert [each["sqnr_db"] for each in three] == ["NaN", "Infinity", "-Infinity"]
    assert isinstance(close["sqnr_db"], float)
    assert {each["top1_drop"] for each in (*three, close)} == {None}


def test_the_comparison_of_two_reports_tells_them_apart() -> None:
    gate = Gate()
    lines = {}
    for now in NAMES[1:]:
        new = document_of(gate, now)
        new["candidates"][0]["candidate"] = "nan"
        lines[now] = changes(document_of(gate, "nan"), new)
    assert "nan: SQNR NaN → ∞ dB" in lines["equal"]
    assert "nan: SQNR NaN → −∞ dB" in lines["infinite"]
    assert "nan: has no limit set now" in lines["equal"]
    assert changes(document_of(gate, "nan"), document_of(gate, "nan")) == []
    without = document_of(gate, "equal")
    without["candidates"][0]["sqnr_db"] = None
    assert "equal: SQNR ∞ dB → not measured" in changes(document_of(gate, "equal"), without)


def layer(name: str, decibels: float) -> LayerError:
    return LayerError(name, "Conv", "INT8", decibels, decibels, math.inf, 0.9, 0.5, 8, 0, ())


def test_a_layer_that_adds_nan_comes_first_and_an_equal_one_is_not_among_the_worst() -> None:
    (candidate,) = document_of(Gate(), "nan")["candidates"]
    layers = [layer("close", 30.0), layer("same", math.inf), layer("broken", math.nan)]
    candidate["layers"] = [each.to_dict() for each in layers]

    assert [each["name"] for each in worst_layers(candidate, 3)] == ["broken", "close"]
    assert "NaN" in printed(parity_output._layer_table(candidate))
    close, same, broken = depth.tensor_errors(candidate)
    assert (close.broken, same.broken, broken.broken) == (False, False, True)
    assert (close.added, same.added) == (pytest.approx(10**0.5), 0.0)
    panel = depth.error_by_depth([close, same, broken], depth.common_decades([[close]]), "nan")
    assert panel.count("✕") == 1
    assert "broken: adds NaN" in panel


@pytest.mark.parametrize("limit", LIMITS)
def test_no_limit_passes_on_nan_or_on_what_was_not_measured(limit: str) -> None:
    output = next(kind for kind in ("single-label", "regression") if limited_measure(limit, kind))
    sound = compared("close", output)
    measure = limited_measure(limit, output)
    assert measure is not None
    gate = Gate(**{limit: LIMITS[limit].lowest if LIMITS[limit].at_least else 1e9})
    if limit in {"max_drop", "max_mae_increase"}:
        with pytest.raises(UsageError, match="needs (labels|true values)"):
            gate.judge(sound)
        return
    assert gate.judge(sound).passed is True
    for value in ({measure.key: math.nan}, {}):
        values = {key: each for key, each in sound.values.items() if key != measure.key} | value
        verdict = gate.judge(replace(sound, values=values))
        assert verdict.passed is False
        (line,) = verdict.failures
        assert ("is NaN" if value else "was not measured") in line


def test_a_limit_that_holds_says_value_and_limit() -> None:
    verdict = Gate(max_kl=0.02, min_sqnr_db=20.0).judge(compared("equal"))
    assert [str(check) for check in verdict.checks] == [
        "SQNR ∞ dB ≥ 20.00 dB: passed",
        "KL divergence 0 nats ≤ 0.02 nats: passed",
    ]


def test_without_a_limit_nothing_passes_and_nothing_fails() -> None:
    document = document_of(Gate(), "close", "equal")
    assert document["passed"] is None
    assert [each["passed"] for each in document["candidates"]] == [None, None]
    assert "no limit set" in render_html(document)
    assert "close: no limit set" in parity_output._verdict(document, document["candidates"][0])
    suite = ElementTree.fromstring(junit_xml(document))
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "2")
    assert document_of(Gate(), "close", "nan")["passed"] is False


def test_the_exports_table_tells_value_and_limit() -> None:
    measures = {
        "sqnr_db": Measured(math.inf, at_least=20.0),
        "kl": Measured(0.0058, at_most=0.2),
        "relative_error": Measured(0.5),
    }
    stage = StageParity("openvino", "torch", "engine", "INT8", 8, measures)
    told = {each.key: each.tell_held(stage.measures.get(each.key)) for each in MEASURES}
    assert told["sqnr_db"] == "∞ dB ≥ 20 dB"
    assert told["kl"] == "0.0058 nats ≤ 0.2 nats"
    assert told["relative_error"] == "0.5"
    assert told["cosine"] == "not measured"
    assert stage.holds is True


def test_names_are_text_and_never_markup() -> None:
    document = document_of(Gate(), "close")
    document["candidates"][0]["candidate"] = "[red]bundle[/red]"
    document["image_source"] = "[bold]photos[/bold]"
    text = printed(parity_output._table(document))
    assert "[red]bundle[/red]" in text
    assert "[bold]photos[/bold]" in text
