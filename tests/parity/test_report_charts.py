"""The charts of the report: what they show, and that no label covers another one."""

from __future__ import annotations

import math
import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from report_documents import layer, single, timed

from effnet_edge.parity.report.charts import depth, labels
from effnet_edge.parity.report.charts.frontier import Allowed, Point, frontier, on_frontier
from effnet_edge.parity.report.charts.loss_strip import common_scale, loss_strip
from effnet_edge.parity.report.charts.svg import (
    NARROWEST,
    Scale,
    element,
    shortened,
    text,
    width_of,
)
from effnet_edge.parity.report.loss import Loss, loss_kind, loss_of
from effnet_edge.parity.report.page import short_names

KIND = loss_kind(single())
SHARES = st.floats(0.05, 20)
LOSSES = st.builds(
    lambda value, width: Loss(value, (value - width, value + width), None),
    st.sampled_from([0.0, 0.5]) | st.floats(-5, 50),
    st.floats(0, 5),
)
POINTS = st.lists(
    st.builds(lambda time, loss: (time, loss), st.sampled_from([1.0]) | SHARES, LOSSES),
    min_size=2,
    max_size=20,
)


def named(points: list[tuple[float, Loss]]) -> list[Point]:
    return [
        Point(f"name-{at}", f"a-rather-long-label-{at}", time, loss)
        for at, (time, loss) in enumerate(points)
    ]


def texts(svg: ElementTree.Element, width: float) -> list[labels.Box]:
    """The boxes of all text in a chart of that many pixels, as a browser would lay it out."""
    boxes: list[labels.Box] = []

    def place(value: str) -> float:
        return width * float(value[:-1]) / 100 if value.endswith("%") else float(value)

    def walk(node: ElementTree.Element, left: float, top: float) -> None:
        for child in node:
            x, y = place(child.get("x", "0")), float(child.get("y", "0"))
            if child.tag == "svg" and "viewBox" not in child.attrib:
                walk(child, left + x, top + y)
            if child.tag == "text":
                long = width_of("".join(child.itertext()))
                back = {"start": 0.0, "middle": 0.5, "end": 1.0}[child.get("text-anchor", "start")]
                at = left + x - back * long
                boxes.append(labels.Box(at, top + y - 8, at + long, top + y + 3))

    walk(svg, 0.0, 0.0)
    return boxes


def overlapping(boxes: list[labels.Box]) -> list[tuple[labels.Box, labels.Box]]:
    return [pair for pair in combinations(boxes, 2) if pair[0].touches(pair[1])]


def charts(markup: object) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(str(markup))
    return [root] if root.tag == "svg" else list(root)


@settings(deadline=None, max_examples=60)
@given(POINTS)
def test_no_name_of_the_frontier_covers_another_at_any_width(
    points: list[tuple[float, Loss]],
) -> None:
    _, plot = charts(frontier(named(points), KIND, "fp32"))
    for width in labels.WIDTHS:
        assert overlapping(texts(plot, width)) == []


def test_limits_are_lines_where_they_are_among_the_points() -> None:
    def lines(allowed: Allowed | None) -> list[dict[str, str]]:
        points = named([(1.0, Loss(0.0, None, None)), (0.5, Loss(2.0, None, None))])
        _, plot = charts(frontier(points, KIND, "fp32", allowed))
        return [each.attrib for each in plot.iter("line") if each.get("class") == "limit"]

    assert lines(None) == lines(Allowed()) == lines(Allowed(time=9.0, loss=-3.0)) == []
    (across,) = lines(Allowed(loss=1.0))
    assert across["y1"] == across["y2"] == f"{210 / 2:g}"
    (down,) = lines(Allowed(time=0.675))
    assert down["x1"] == down["x2"] == "50.00%"
    assert len(lines(Allowed(0.675, 1.0))) == 2


@given(POINTS)
def test_the_frontier_is_what_nothing_beats(given_points: list[tuple[float, Loss]]) -> None:
    points = named(given_points)
    best = on_frontier(points)
    for each in points:
        beaten = any(
            (other.time, other.loss.value) != (each.time, each.loss.value)
            and other.time <= each.time
            and other.loss.value <= each.loss.value
            for other in points
        )
        twins = [p for p in best if (p.time, p.loss.value) == (each.time, each.loss.value)]
        assert (len(twins) == 0) == beaten
    assert all(a.time < b.time and a.loss.value > b.loss.value for a, b in pairwise(best))


def test_one_point_or_none_is_no_frontier() -> None:
    lost = Loss(1.0, None, None)
    assert frontier([Point("a", "a", 1.0, lost)], KIND, "a") is None
    broken = Point("b", "b", 1.0, Loss(math.nan, None, None))
    assert frontier([Point("a", "a", 1.0, lost), broken], KIND, "a") is None


@example(1.0, 401.0, 2)
@example(2.0, 2.0, 1)
@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(1, 8))
def test_ticks_are_round_even_and_inside(low: float, width: float, most: int) -> None:
    scale = Scale(low, low + width)
    ticks = scale.ticks(most)
    assert 1 <= len(ticks) <= most
    assert all(scale.low - 1e-9 <= tick <= scale.high + 1e-9 for tick in ticks)
    steps = {round((b - a) / width, 6) for a, b in pairwise(ticks)}
    assert len(steps) <= 1


@settings(deadline=None)
@given(LOSSES, st.none() | st.floats(0, 50))
def test_the_strip_shows_value_interval_and_limit_in_place(loss: Loss, limit: float | None) -> None:
    loss = Loss(loss.value, loss.interval, limit)
    scale = common_scale([loss])
    (svg,) = charts(loss_strip(loss, KIND, scale, "b0 <int8>"))
    by_class = {each.get("class"): each for each in svg}
    bad = limit is not None and loss.value > limit
    tone = "bad" if bad else "mark"
    assert float(by_class[f"dot {tone}"].get("cx", "")[:-1]) == pytest.approx(
        scale.at(loss.value), abs=0.01
    )
    bar = by_class[f"interval {tone}"]
    assert loss.interval is not None
    assert [float(bar.get(end, "")[:-1]) for end in ("x1", "x2")] == pytest.approx(
        [scale.at(end) for end in loss.interval], abs=0.01
    )
    assert ("limit" in by_class, "allowed" in by_class) == (limit is not None,) * 2
    assert "b0 <int8>" in (svg.get("aria-label") or "")
    assert (svg.findtext("title") or "").startswith("b0 <int8>: top-1 drop")
    assert overlapping(texts(svg, labels.WIDTHS[0])) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_has_no_strip(value: float) -> None:
    loss = Loss(value, None, 1.0)
    assert loss_strip(loss, KIND, common_scale([loss]), "b0") is None


def network(blocks: list[int]) -> list[str]:
    return [
        "stem.conv",
        *(f"stages.{s}.{b}.project.conv" for s, n in enumerate(blocks) for b in range(n)),
        "head.conv",
        "logits",
    ]


def panel(document: dict[str, object]) -> ElementTree.Element:
    errors = depth.tensor_errors(document["candidates"][0])  # type: ignore[index]
    _, plot = charts(depth.error_by_depth(errors, depth.common_decades([errors]), "b0"))
    return plot


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=9))
def test_stages_are_named_and_no_name_covers_another(blocks: list[int]) -> None:
    layers = [layer(name, 20, 30) for name in network(blocks)]
    plot = panel(single(layers=layers))
    for width in labels.WIDTHS:
        assert overlapping(texts(plot, width)) == []
    shown = ["".join(each.itertext()) for each in plot.iter("text")]
    assert {"stem", "head"} <= set(shown)
    assert str(blocks.index(max(blocks))) in shown


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text("abc_<&", min_size=1, max_size=30), min_size=1, max_size=40))
def test_foreign_names_keep_apart_too(names: list[str]) -> None:
    plot = panel(single(layers=[layer(f"{name}.conv", 20, 30) for name in names]))
    for width in labels.WIDTHS:
        assert overlapping(texts(plot, width)) == []
    assert "stages" not in {"".join(each.itertext()) for each in plot.iter("text")}


def test_what_a_tensor_adds_is_apart_from_what_it_inherits() -> None:
    layers = [layer("stem.conv", 20, 20), layer("head.conv", 20, 60), layer("logits", 20, math.inf)]
    plot = panel(single(layers=layers))
    heights = [
        float(each.get("y1", "")) for each in plot.iter("line") if each.get("class") == "added"
    ]
    assert heights == sorted(heights)  # y grows downwards: less and less is added
    assert heights[-1] == depth._PLOT
    (total,) = (each for each in plot.iter("polyline") if each.get("class") == "total")
    ys = {point.split(",")[1] for point in (total.get("points") or "").split()}
    assert len(ys) == 1
    told = [each.findtext("title") for each in plot.iter("line") if each.get("class") == "added"]
    assert told[0] == "stem.conv: adds 10 %, inherits 1 %, in all 10 %"


def test_an_exact_candidate_is_one_whose_every_tensor_is() -> None:
    exact = depth.tensor_errors(single(layers=[layer("a", 60, 90)])["candidates"][0])
    coarse = depth.tensor_errors(
        single(layers=[layer("a", 60, 90), layer("b", 40, 90)])["candidates"][0]
    )
    broken = depth.tensor_errors(single(layers=[layer("a", math.nan, 90)])["candidates"][0])
    assert [depth.is_exact(each) for each in (exact, coarse, broken)] == [True, False, False]


def test_a_loss_without_labels_is_the_share_of_other_answers() -> None:
    document = single(lost=3, labelled=False)
    loss = loss_of(document, document["candidates"][0])
    assert (loss.value, loss.interval, loss.limit) == (pytest.approx(5.0), None, None)
    assert loss_kind(document).title == "other answers"


def test_text_in_a_chart_is_escaped_in_content_and_attributes() -> None:
    told = element("text", "<b>&", id='"><script>')
    assert re.search(r"<script|<b>", str(told)) is None
    assert ElementTree.fromstring(str(told)).text == "<b>&"


def test_short_names_are_what_differs() -> None:
    assert short_names(["b0-openvino-fp32", "b0-openvino-int8"]) == ["fp32", "int8"]
    assert short_names(["out/a.xml", "out/b.xml"]) == ["a.xml", "b.xml"]
    assert short_names(["b0", "b0-int8"]) == ["b0", "b0-int8"]
    assert short_names(["x-", "x-y"]) == ["x-", "x-y"]
    assert short_names(["only-one"]) == ["only-one"]
    assert len(shortened("x" * 50, 16)) == 16
    assert shortened("short", 16) == "short"


def test_a_speed_is_a_time_on_the_chart() -> None:
    document = timed(half=0.5)
    times = [each["cost"]["times_as_fast"] for each in document["candidates"]]
    assert times == [1.0, 2.0]


@given(at=st.floats(0, 100), content=st.text(max_size=20))
def test_text_is_around_its_place_unless_it_would_leave_the_narrowest_chart(
    at: float, content: str
) -> None:
    drawn = ElementTree.fromstring(text(at, 0, content and "x" * len(content), "tick"))
    half = 50 * width_of(content) / NARROWEST
    fits = half <= at <= 100 - half

    assert (drawn.attrib["text-anchor"] == "middle") == fits
