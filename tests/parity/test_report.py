"""The report of a small comparison: what is in it, and that it needs nothing from outside."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest
from report_documents import document_of, examined

from effnet_edge.errors import UsageError
from effnet_edge.parity import Gate
from effnet_edge.parity.inside.bisection import Fault, Findings
from effnet_edge.parity.inside.layers import Histogram, LayerError, Saturation
from effnet_edge.parity.report import build_document, changes, write_report
from effnet_edge.parity.report.document import Circumstances, Document, Examined
from effnet_edge.parity.report.files import read_document
from effnet_edge.parity.study import study
from effnet_edge.pictures.image import Preprocessing
from effnet_edge.text import plain, plain_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREPROCESSING = Preprocessing(16, 0.875, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LABELS = [f"<animal> & {index}" for index in range(6)]


class Classifier:
    execution_precision = "FP32"

    def __init__(self, name: str, noise: float) -> None:
        self.name = name
        self._noise = noise

    def infer(self, batch: np.ndarray, /) -> np.ndarray:
        """Some function of each picture alone, and noise."""
        means = batch.reshape(len(batch), 6, -1).mean(2).astype(np.float32) / 8
        wobble = np.sin(means * 1e3)
        return means + np.float32(self._noise) * wobble


class Pictures:
    source = "random pixels"

    def __init__(self, labelled: bool) -> None:
        self._labelled = labelled

    def __len__(self) -> int:
        return 40

    def batches(self, _preprocessing, size, _skipped=None, _outcomes=None) -> Iterator[tuple]:
        random = np.random.default_rng(3)
        for _ in range(0, 40, size):
            pixels = random.integers(0, 256, (size, 16, 16, 3), np.uint8)
            yield pixels, random.integers(0, 6, size) if self._labelled else None


def layer(name: str, decibels: float) -> LayerError:
    histogram = Histogram(-1.0, 3.0, (1, 5, 2, 0))
    saturation = (Saturation(f"{name}/Q", -0.5, 2.0, 0.125, histogram),)
    return LayerError(name, "Conv", "INT8", decibels, decibels, np.inf, 0.99, 0.5, 8, 1, saturation)


@pytest.fixture(params=[True, False], ids=["labelled", "unlabelled"])
def document(request: pytest.FixtureRequest) -> Document:
    candidates = [Classifier("good", 0.0), Classifier("poor", 2.0)]
    results = study(
        Classifier("torch", 0.0), candidates, Pictures(request.param), PREPROCESSING, batch_size=8
    )
    gate = Gate(min_agreement=0.999)
    fault = Fault("stem.conv", "Conv, pads [1, 1]", "padding", "its pads are <wrong>", np.nan)
    examined = [
        Examined(results[0], gate.judge(results[0].result)),
        Examined(
            results[1],
            gate.judge(results[1].result),
            [layer("stem.conv", 12.5), layer("head.conv", np.nan), layer("pool", np.inf)],
            Findings((fault,), 3),
        ),
    ]
    command = "effnet-edge parity good poor"
    return build_document(examined, Circumstances(command, gate.describe(), LABELS))


class Outside(HTMLParser):
    """Collects everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        told = dict(attributes)
        self.images += tag == "img"
        for key in ("src", "href", "xlink:href", "data", "poster", "srcset"):
            value = told.get(key) or "#"
            if not value.startswith(("#", "data:")):
                self.fetched.append(value)
        if tag in ("script", "link", "iframe", "object"):
            self.fetched.append(tag)


def test_the_page_asks_for_nothing_from_outside(document: Document, tmp_path: Path) -> None:
    page, *_ = write_report(document, tmp_path / "report.html")
    html = page.read_text(encoding="utf-8")
    outside = Outside()
    outside.feed(html)

    assert outside.fetched == []
    assert not re.search(r"url\((?!#)|@import", html)
    assert outside.images == len(document["candidates"][1]["flips"]) > 0


def test_the_verdict_comes_first_and_names_the_fault(document: Document, tmp_path: Path) -> None:
    page, *_ = write_report(document, tmp_path / "report.html")
    body = page.read_text(encoding="utf-8").split("<body>")[1]

    verdict = body[: body.index("</section>")]
    assert "FAILED" in verdict
    assert "top-1 agreement" in verdict
    assert "<code>stem.conv</code>" in verdict
    assert "its pads are &lt;wrong&gt;" in verdict
    assert "&lt;animal&gt; &amp; " in body
    assert "<animal>" not in body
    assert document["command"] in body
    assert "<svg" in body


def test_the_json_is_strict_and_can_be_read_again(document: Document, tmp_path: Path) -> None:
    _, path, _ = write_report(document, tmp_path / "report.html")

    text = path.read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == json.loads(json.dumps(document))
    assert read_document(path)["passed"] is False
    first, second = document["candidates"]
    assert (first["passed"], second["passed"]) == (True, False)
    assert first["sqnr_db"] == "Infinity"
    assert second["layers"][1]["sqnr_db"] == "NaN"


def test_junit_has_a_case_a_candidate(document: Document, tmp_path: Path) -> None:
    *_, path = write_report(document, tmp_path / "report.html")
    suite = ElementTree.parse(path).getroot()

    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    failure = suite.findall("testcase")[1].find("failure")
    assert failure is not None
    assert "top-1 agreement" in (failure.get("message") or "")
    assert "stem.conv: its pads are <wrong>" in (failure.text or "")


@pytest.mark.parametrize(
    "name", [os.fsdecode(b"caf\xe9.onnx"), "a\ud800", "\x07.onnx", "\x1b[31m", "\x85", "\uffff"]
)
def test_a_name_of_any_characters_is_written(tmp_path: Path, name: str) -> None:
    fault = Fault(name, "Conv", "padding", f"its pads are {name}", np.nan)
    failed = replace(examined(name, gate=Gate(max_kl=0)), findings=Findings((fault,), 3))
    document = document_of(failed, examined("other"))
    page, told, junit = write_report(document, tmp_path / "report.html", [f"{name}: changed"])

    for path in (page, told, junit):
        text = path.read_bytes().decode()
        assert plain_lines(text) == text
    assert read_document(told)["candidates"][0]["candidate"] == name
    assert plain(name) in page.read_text(encoding="utf-8")
    suite = ElementTree.parse(junit).getroot()
    assert str(suite[0].get("name")).startswith(plain(name))


def test_changes_since_an_old_report_are_told(document: Document) -> None:
    new = json.loads(json.dumps(document))
    assert changes(document, new) == []

    poor = new["candidates"][1]
    poor.update(candidate_precision="INT8", passed=True, kl=poor["kl"] / 2)
    new["candidates"][0]["candidate"] = "renamed"
    lines = changes(document, new)

    assert "renamed: was not in the old report" in lines
    assert "good: is no longer compared" in lines
    assert "poor: passes now" in lines
    assert "poor: ran in FP32, now in INT8" in lines
    assert any(line.startswith("poor: KL divergence") for line in lines)


@pytest.mark.parametrize("text", ["{}", "no JSON", "[]", '{"schema": 1, "candidates": [1]}'])
def test_what_is_no_report_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)

    with pytest.raises(UsageError, match="parity report"):
        read_document(path)


def test_a_folder_that_is_not_there_is_told(document: Document, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        write_report(document, tmp_path / "none" / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_another_question_is_told_before_other_answers() -> None:
    loose, strict = Gate(max_kl=5), Gate(max_kl=1e-9, min_agreement=0.5)
    old = document_of(examined("m.onnx", gate=strict, noise=0.1), gate=strict)
    new = document_of(examined("m.onnx", gate=loose, noise=0.2), gate=loose)
    new.update(reference="swap.onnx", reference_precision="INT8")
    assert changes(old, new)[:3] == [
        f"the reference is another: {old['reference']} ({old['reference_precision']}), now "
        "swap.onnx (INT8)",
        "the limits are others: top-1 agreement ≥ 50 %, KL divergence ≤ 1e-09 nats, now "
        "KL divergence ≤ 5 nats",
        "m.onnx: passes now",
    ]
    other_kind = {**old, "output": "features"}
    (line, *_) = changes(old, other_kind)
    assert line == "the outputs are taken for others: single-label, now features"


def test_candidates_of_one_name_are_compared_with_their_like() -> None:
    good, poor = examined("m.onnx", noise=0.01), examined("m.onnx", noise=0.5)
    both, one = document_of(good, poor), document_of(good)
    assert changes(both, both) == []
    assert changes(both, one) == ["m.onnx: is no longer compared"]
    assert changes(one, both) == ["m.onnx: was not in the old report"]
