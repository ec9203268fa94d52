"""The page in each state that a comparison can end in."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest
from report_documents import (
    SOURCE,
    document_of,
    examined,
    layer,
    single,
    timed,
)

from effnet_edge.bundle import Calibration
from effnet_edge.cli.parity_output import _table
from effnet_edge.parity import Gate
from effnet_edge.parity.measures.statistics import images_to_tell
from effnet_edge.parity.measures.table import BY_KEY
from effnet_edge.parity.report import changes
from effnet_edge.parity.report.page import render_html
from effnet_edge.parity.report.wording import MEANINGS, answer, state_of, too_few_pictures

ROOT = Path(__file__).parents[2]
DROP = Gate(max_drop=1.0)
VOID = {"meta", "img", "br", "!doctype"}


class Page(HTMLParser):
    """The text of a page by the elements that it is in; fails where one is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.text += data


def text_of(html: str) -> str:
    return " ".join(Page(html).text.split())


def verdict(html: str) -> str:
    return html[html.index('<section class="verdict') : html.index("</section>")]


def test_without_a_limit_it_is_measured_and_never_green() -> None:
    document = single(lost=1)
    html = render_html(document)
    assert 'class="verdict unlimited"' in html
    assert "<h1>Measured, no limit set</h1>" in html
    assert "Passed" not in html
    assert 'class="allowed"' not in html
    assert "--max-drop POINTS" in verdict(html)


@pytest.mark.parametrize(
    ("output", "option"),
    [
        ("multi-label", "--min-agreement PCT"),
        ("regression", "--max-nrmse SHARE"),
        ("features", "--min-sqnr DB"),
    ],
)
def test_the_option_that_would_set_a_limit_is_one_that_the_output_has(output, option: str) -> None:
    assert f"none set; {option} sets one" in verdict(render_html(single(output=output)))


def test_an_interval_beyond_the_limit_is_not_known_whether_it_holds() -> None:
    document = single(DROP)
    (candidate,) = document["candidates"]
    html = render_html(document)
    assert candidate["passed"] is True
    assert candidate["drop_limit"]["known"] is False
    assert state_of(candidate) == "unsure"
    assert 'class="verdict unsure"' in html
    assert "they are too few to be sure" in verdict(html)
    assert "60 pictures are too few to know whether it holds" in verdict(html)
    needed = candidate["drop_limit"]["images"]
    assert f"about {needed:,} would tell" in verdict(html)
    enough = single(DROP, images=needed)["candidates"][0]
    assert (state_of(enough), too_few_pictures(enough)) == ("passed", None)
    one_less = single(DROP, images=needed - 1)["candidates"][0]
    assert state_of(one_less) == "unsure"


def test_a_drop_that_may_still_be_within_the_limit_fails_and_says_so() -> None:
    document = single(DROP, lost=3)
    html = verdict(render_html(document))
    assert "<h1>FAILED</h1>" in html
    assert "top-1 drop 5.00 points is above the 1.00 points allowed" in html
    assert "too few to be sure that it fails" in html
    certain = single(DROP, lost=30)
    assert too_few_pictures(certain["candidates"][0]) is None


def test_nan_is_told_and_never_drawn() -> None:
    layers = [layer("stem.conv", 30, 30), layer("head.conv", math.nan, math.nan)]
    document = single(DROP, broken=2, layers=layers)
    html = render_html(document)
    assert "gave NaN or infinite numbers for 2 of 60 pictures: it cannot be used" in verdict(html)
    assert "✕" in html
    assert "head.conv NaN" in html
    assert "nan" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)


def test_an_exact_candidate_is_the_same_but_for_rounding_and_left_out_of_the_depth() -> None:
    exact = examined("fp32", noise=1e-6, gate=DROP, layers=[layer("stem.conv", 110, 120)])
    coarse = examined("int8", lost=2, gate=DROP, layers=[layer("stem.conv", 20, 20)])
    html = render_html(document_of(exact, coarse, gate=DROP))
    text = text_of(html)
    assert "fp32: the same as torch but for rounding on 60 pictures" in text
    assert "0 points; the same but for rounding" in text
    assert html.count('class="interval ') == 1
    assert "Not shown, as no tensor is off by more than 0.3 %: fp32." in text
    assert html.count('class="chart"') == 3  # a strip each, and int8 by depth
    assert "1 of 2 models" in verdict(html)


@pytest.mark.parametrize("output", ["multi-label", "features"])
def test_other_kinds_of_output_are_told_in_their_own_words(output: str) -> None:
    gate = Gate(min_sqnr_db=10.0) if output == "features" else Gate(min_agreement=0.9)
    document = single(gate, output=output, lost=2 * (output == "multi-label"))
    text = text_of(render_html(document))
    assert ("another set of labels on 3.3 % of 60 pictures" in text) == (output == "multi-label")
    assert ("the features differ by" in text) == (output == "features")
    assert "limit: 10 %" in text if output == "multi-label" else "limit: 31.6228 %" in text
    assert "flipped" not in text
    assert "label <" not in text


def test_without_labels_the_answers_are_compared() -> None:
    document = single(Gate(min_agreement=0.9), labelled=False, lost=3)
    text = text_of(render_html(document))
    assert "another answer on 5 % of 60 pictures" in text
    assert "limit: 10 %" in text
    assert "too few" not in text
    flips = document["candidates"][0]["flips"]
    surest = max(flip["reference_confidence"] for flip in flips)
    assert f"torch was at most {100 * surest:.0f} % sure of any of them" in text
    assert "How often both agree" in text


def test_speed_is_shown_where_it_was_measured_and_only_there() -> None:
    without = text_of(render_html(single()))
    assert "The speed was not measured" in without
    assert "What a faster model costs" not in without
    text = text_of(render_html(timed(int8=0.5)))
    assert "2 times as fast as fp32; a quarter of the size of fp32" in text
    assert "What a faster model costs" in text
    assert "in 50 rounds all models took turns" in text


@pytest.mark.parametrize(
    ("times", "rounds"), [(0.96, (0.95, 0.97)), (1.3, (0.9, 1.8)), (1.04, (1.03, 1.06))]
)
def test_what_the_rounds_do_not_tell_apart_is_about_as_fast(
    times: float, rounds: tuple[float, float]
) -> None:
    document = timed(int8=0.5)
    document["candidates"][1]["cost"] |= {"times_as_fast": times, "middle_half": rounds}
    text = text_of(render_html(document))
    assert "; about as fast as fp32" in text
    assert "times as long" not in text


def test_a_second_model_of_the_baselines_name_has_its_own_speed() -> None:
    document = timed(int8=0.5)
    document["candidates"][1]["candidate"] = "fp32"
    text = text_of(render_html(document))
    assert "fp32: 1.7 points lost" in text
    assert "2 times as fast as fp32; a quarter of the size of fp32" in text
    assert text.count("the others are told against it") == 1


def test_many_candidates_are_folded_but_for_those_that_fail() -> None:
    candidates = [examined(f"m{at}", lost=4 * (at == 7), gate=DROP) for at in range(9)]
    html = render_html(document_of(*candidates, gate=DROP))
    shown, folded = verdict(html).split("<details>")
    assert "m7: top-1 drop" in shown
    assert "m0" not in shown
    assert folded.count("<li>") == 8
    assert text_of(html).count("8 more") == 1


def test_names_labels_and_files_are_text() -> None:
    evil = "<script>alert(1)</script>"
    document = single(DROP, lost=3, layers=[layer(f"stages.0.{evil}", 10, 10)])
    document["candidates"][0]["candidate"] = document["image_source"] = evil
    document["reference"] = document["command"] = evil
    document["skipped"] = [evil]
    page = Page(render_html(document, [evil]))
    assert all(tag != "script" for tag, _ in page.seen)
    assert page.text.count(evil) >= 6


def test_every_chart_has_a_title_and_nothing_runs() -> None:
    html = render_html(timed(int8=0.5))
    for svg in re.findall(r"<svg[^>]*>", html):
        assert 'aria-label="' in svg or 'aria-hidden="true"' in svg or 'overflow="visible"' in svg
    page = Page(html)
    assert all(tag != "script" for tag, _ in page.seen)
    handlers = {key for _, attributes in page.seen for key in attributes if key.startswith("on")}
    assert handlers == set()


def test_pictures_are_counted_once() -> None:
    document = single(lost=1)
    text = text_of(render_html(document))
    assert SOURCE in text
    assert "60 pictures of 60" not in text
    assert "60 pictures: 60" not in text
    assert str(_table(document).title).count("60") == 1
    folder = {**document, "image_source": "photos"}
    assert "60 pictures: photos" in text_of(render_html(folder))
    (line,) = changes(document, folder)
    assert line == f"the pictures are others: 60 ({SOURCE}), now 60 (photos)"


@pytest.mark.parametrize("images", [60, 200, 1000])
def test_the_number_of_pictures_needed_follows_its_formula_where_nothing_changes(
    images: int,
) -> None:
    (candidate,) = single(images=images)["candidates"]
    statistics = candidate["statistics"]
    assert statistics["images_to_tell_it"] == images_to_tell(0.005, 0.005)
    assert statistics["images_to_tell_it_is_least"] is True
    (changed,) = single(images=images, lost=2, gained=1)["candidates"]
    assert changed["statistics"]["images_to_tell_it"] == images_to_tell(0.005, 3 / images)
    assert "takes at least 1,568 pictures" in text_of(render_html(single(images=images)))


@pytest.mark.parametrize(
    ("lost", "gained", "told"),
    [
        (0, 0, "no drop seen on 60 pictures; a drop of up to 4.5 points cannot be excluded"),
        (2, 0, "3.3 points lost on 60 pictures, which may be chance; on others probably at most"),
        (30, 0, "50.0 points lost on 60 pictures; on others probably between"),
        (0, 2, "3.3 points more right on 60 pictures; a drop of up to"),
        (0, 30, "50.0 points more right on 60 pictures."),
    ],
)
def test_the_sentence_says_what_was_seen_and_what_may_be(lost: int, gained: int, told: str) -> None:
    document = single(lost=lost, gained=gained)
    assert answer(document, document["candidates"][0]).startswith(f"b0-int8: {told}")


def test_meanings_are_of_measures_that_exist() -> None:
    assert MEANINGS.keys() <= BY_KEY.keys()


def _luminance(colour: str) -> float:
    """WCAG 2's relative luminance of #rrggbb."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mode", range(3), ids=["light", "dark", "print"])
def test_text_can_be_read_in_every_mode(mode: int) -> None:
    css = resources.files("effnet_edge.parity.report").joinpath("templates/style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", blocks[mode]))
    for ground in ("page", "soft"):
        for ink in ("ink", "quiet", "good", "bad", "unsure"):
            dark, light = sorted(_luminance(colours[name]) for name in (ground, ink))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, ink)
    assert set(re.findall(r"var\(--(\w+)\)", css)) <= colours.keys()


def test_a_table_that_is_too_wide_scrolls_and_shows_that_it_does() -> None:
    rooms = (ROOT / "effnet_edge", ROOT / "export")
    templates = [each for room in rooms for each in room.rglob("templates/*.j2")]
    pages = [each for each in templates if "<table" in each.read_text()]
    assert {each.name for each in pages} >= {"tune.html.j2", "bench.html.j2", "fleet.html.j2"}
    for page in pages:
        text = page.read_text()
        assert text.count("<table") == text.count('<div class="scroll"><table'), page
    css = resources.files("effnet_edge.parity.report").joinpath("templates/style.css").read_text()
    (screen, printed) = re.findall(r"\.scroll \{(.*?)\}", css)
    # What moves with the table covers what stays with the frame.
    assert screen.index("no-repeat local") < screen.index("var(--shade)")
    assert "background: none" in printed


def test_the_sections_come_in_the_order_in_which_one_asks() -> None:
    document = timed(int8=0.5)
    document["candidates"][1]["layers"] = [layer("stem.conv", 20, 20).to_dict()]
    html = render_html(document)
    order = ["<h1>", "At a glance", "What a faster", "Where the error", "flipped", "Details"]
    places = [html.index(each, html.index("<body>")) for each in order]
    assert all(a < b for a, b in pairwise(places))
    assert not re.search(r"<details[^>]*open", html)


def test_what_int8_left_out_and_replaced_is_told_with_its_names() -> None:
    made = Calibration(
        "calibration.json", "asymmetric-uint8", "photos", 60, "0" * 64,
        kept=("head.conv",), fast_activations=("stem.conv", "stages.0.0.depthwise"),
    )  # fmt: skip
    plain, told = (
        text_of(render_html(document_of(replace(examined("b0-int8"), calibration=each))))
        for each in (None, made)
    )

    assert "1 layer in 16 bit" in told
    assert "2 layers with a fitted hard-swish" in told
    assert "stem.conv, stages.0.0.depthwise" in told
    assert "--exact-activations" in told
    assert "16 bit" not in plain
    assert "hard-swish" not in plain
