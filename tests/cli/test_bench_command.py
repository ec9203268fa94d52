"""`effnet-edge bench`: the engine alone and the way from files, as a table, JSON and a page."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_bundles import CLASSES, LABELS, SIDE, tiny_model, write_bundle

from effnet_edge.bench import Original, bench_models
from effnet_edge.bench.calls import MOST_FILES, FileCalls, NoiseCalls
from effnet_edge.bench.other_work import ProcessorTime, told_other_work
from effnet_edge.bundle import OutputSpec
from effnet_edge.cli.bench_page import histogram, render_page
from effnet_edge.cli.main import cli
from effnet_edge.errors import EffnetEdgeError, ImageError, UsageError
from effnet_edge.parity.report.charts.svg import Scale
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from click.testing import Result


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bundles "<b>" and "c", and pictures in "in"."""
    write_bundle(tmp_path / "<b>", "openvino", tiny_model(batch="N"))
    write_bundle(tmp_path / "c", "onnxruntime", tiny_model(batch="N"))
    (tmp_path / "in").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bench(*arguments: str) -> Result:
    given = ["bench", *arguments, "--runs", "4"]
    return CliRunner().invoke(cli, given, catch_exceptions=False)


@pytest.mark.usefixtures("place")
def test_the_whole_way_is_timed_beside_the_engine() -> None:
    done = bench("<b>", "c", "--images", "in", "--batch", "2")
    assert done.exit_code == 0
    rows = [line for line in done.stdout.splitlines() if "<b>" in line or " c" in line]
    assert sum("file to label" in row for row in rows) == 2
    document = json.loads(bench("<b>", "c", "--images", "in", "--json").stdout)
    for row in document:
        assert row["timing"]["runs"] == row["from_files"]["runs"] == 4
        assert len(row["seconds"]) == len(row["seconds_from_files"]) == 4
        low, high = row["timing"]["middle_half"]
        assert low <= row["timing"]["median"] <= high
    assert document[0]["from_files"]["ratio"] == 1.0
    assert json.loads(bench("c", "--json").stdout)[0]["from_files"] is None


@pytest.mark.usefixtures("place")
def test_options_of_the_engine() -> None:
    (row,) = json.loads(bench("<b>", "--throughput", "--threads", "2", "--json").stdout)
    with EngineRunner.load("<b>", throughput=True, threads=2) as runner:
        assert row["concurrency"] == runner.parallelism
    (row,) = json.loads(bench("<b>", "--device", "cpu", "--precision", "fp32", "--json").stdout)
    assert (row["device"], row["concurrency"]) == ("CPU", 1)
    for options, told in (
        (("--device", "npu9"), "npu9"),
        (("--images", "nowhere"), "nowhere"),
        (("--images", "<b>"), "no pictures"),
    ):
        with pytest.raises(UsageError, match=told):
            bench("<b>", *options)
    with pytest.raises(UsageError, match="fp16"):
        bench("c", "--precision", "fp16")
    (row,) = json.loads(bench("c", "--throughput", "--threads", "3", "--json").stdout)
    assert row["concurrency"] == 3


def test_a_picture_that_cannot_be_used_is_told_before_any_call(place: Path) -> None:
    (place / "in/1.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"in/1\.png"):
        bench("<b>", "--images", "in")


class Elements(HTMLParser):
    """The names of a page's elements, and what it asks for from elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.asked: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.asked += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_draws_each_model_and_asks_for_nothing(place: Path) -> None:
    assert bench("<b>", "c", "--images", "in", "--report", "out.html").exit_code == 0
    page = (place / "out.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b>c</b>" in page
    found = Elements(page)
    assert found.asked == []
    assert "script" not in found.names
    drawn = [name for name in found.names if name == "rect"]
    assert len(drawn) >= 4
    assert "From the file to the label" in page
    assert bench("c", "--report", "out.html").exit_code == 0  # an older one is replaced
    assert "From the file to the label" not in (place / "out.html").read_text()
    (place / "mine.html").write_text("my notes")
    for name, told in (("mine.html", "no report"), ("out.txt", ".html"), ("c/x.html", "bundle")):
        with pytest.raises(EffnetEdgeError, match=told):
            bench("c", "--report", name)
    assert (place / "mine.html").read_text() == "my notes"


@pytest.mark.usefixtures("place")
def test_of_a_slow_model_more_is_told_than_no_picture_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (timing,) = bench_models(["c"], runs=2)
    slow = replace(timing, images_per_second=0.314, timing=replace(timing.timing, throughput=0.314))
    monkeypatch.setattr("effnet_edge.bench.bench_models", lambda *_, **__: [slow])
    assert " 0.314 " in bench("c").stdout
    assert ">0.314<" in render_page([slow])


@pytest.mark.usefixtures("place")
def test_a_busy_machine_is_told_on_the_page_and_below_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ProcessorTime, "others_until", lambda *_: 0.37)
    told = "other programs had 37 % of this machine's processor time"
    assert told in bench("c").stderr
    (timing,) = bench_models(["c"], runs=2)
    assert timing.other_work == 0.37
    assert told.replace("'", "&#39;") in render_page([timing])
    monkeypatch.setattr(ProcessorTime, "others_until", lambda *_: 0.02)
    assert "warning" not in bench("c").stderr
    assert told_other_work(None) == ""


@pytest.mark.parametrize(("low", "high"), [(10.8, 11.6), (11.01, 11.02), (9.0, 11.0), (1.0, 900.0)])
def test_a_histogram_has_round_values_however_alike_the_times_are(low: float, high: float) -> None:
    scale = Scale(math.log10(low), math.log10(high))
    drawn = str(histogram([low / 1e3, high / 1e3], scale, "m"))
    ticks = [float(each) for each in re.findall(r">([0-9.e+-]+) ms</text>", drawn)]
    assert 1 <= len(ticks) <= 6
    assert all(low <= each <= high for each in ticks)


def test_every_call_is_in_the_histogram() -> None:
    seconds = [0.001, 0.001, 0.002, 0.004, 9.0]
    drawn = str(histogram(seconds, Scale(0.0, 1.0), "<m>"))
    assert drawn.count("<rect") == 4
    assert "&lt;m&gt;: the median of 5 calls is 2.00 ms" in drawn


@pytest.mark.usefixtures("place")
def test_more_images_than_the_engine_takes_are_held_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with EngineRunner.load("c") as runner:
        sizes: list[int] = []
        monkeypatch.setattr(runner, "infer", lambda pixels: sizes.append(len(pixels)))
        NoiseCalls(runner, 19)()
    assert sizes == [8, 8, 3]


@pytest.mark.usefixtures("place")
def test_long_work_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    bench_models(["c"], runs=2, tell=lines.append)
    assert lines == []
    monkeypatch.setattr("effnet_edge.bench.models.LONG_SECONDS", 0.0)
    bench_models(["c", "c"], batch=9, runs=2, warmup=1, tell=lines.append)
    (line,) = lines
    assert line.startswith("9 images take each model in turn about ")
    assert "here, and all calls about " in line
    monkeypatch.setattr("effnet_edge.bench.models.LONG_SECONDS", 50.0)
    # However long one call takes, it is made.
    clock = iter([0.0, 40.0, 0.0, 0.001])
    monkeypatch.setattr("effnet_edge.bench.models.time.perf_counter", lambda: next(clock, 99.0))
    bench_models(["c"], runs=2, warmup=1, seconds=5, concurrency=1, tell=lines.append)
    assert lines[1:] == [
        "1 image takes about 40 s here, and all calls about 80 s: a smaller --batch, fewer --runs, "
        "or --seconds, end it sooner"
    ]


@pytest.mark.parametrize("kind", ["single-label", "regression", "features"])
def test_files_take_turns_whatever_the_bundle_gives(place: Path, kind: str) -> None:
    output = OutputSpec("logits", CLASSES, kind)  # type: ignore[arg-type]
    labels = None if kind == "features" else LABELS
    write_bundle(place / "k", "onnxruntime", tiny_model(batch="N"), labels, output=output)
    files = sorted(Path("in").iterdir())
    with EngineRunner.load("k") as runner:
        for batch in (1, 2):
            calls = FileCalls(runner, files * 200, batch)
            for _ in range(4):
                calls()
        with pytest.raises(UsageError, match="no pictures"):
            FileCalls(runner, [], 1)
    assert MOST_FILES < 600


@pytest.mark.usefixtures("place")
def test_an_original_takes_its_turn_with_the_same_images() -> None:
    shapes: list[tuple[int, ...]] = []
    original = Original("mine", "paper", "FP64", lambda pixels: shapes.append(pixels.shape))
    rows = bench_models(
        ["c", "mine"],
        batch=3,
        runs=2,
        warmup=1,
        files=[Path("in/0.png")],
        originals={"mine": original},
    )
    assert [(row.path, row.device, row.execution_precision) for row in rows][1] == (
        "mine",
        "paper",
        "FP64",
    )
    assert rows[0].from_files is not None
    assert rows[1].from_files is None
    assert shapes == [(3, SIDE, SIDE, 3)] * 3
    with pytest.raises(UsageError, match="name a bundle of it"):
        bench_models(["mine"], runs=1, originals={"mine": original})
    page = render_page(rows)
    assert page.count("<b>mine</b>") == 1


@pytest.mark.usefixtures("place")
def test_weights_that_are_not_there_are_named_as_given() -> None:
    with pytest.raises(UsageError, match=r"^--weights nowhere\.pth: no such file$"):
        bench("torch", "c", "--weights", "nowhere.pth")


@pytest.mark.usefixtures("place")
def test_torch_needs_a_bundle_and_weights_need_torch() -> None:
    with pytest.raises(UsageError, match="name a bundle, too"):
        bench("torch")
    with pytest.raises(UsageError, match="goes with 'torch'"):
        bench("c", "--weights", "mine.pt")
