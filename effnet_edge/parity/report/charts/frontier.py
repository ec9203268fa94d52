"""Loss against time: which candidates are worth having."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.parity.report.charts.svg import (
    LINE,
    Scale,
    chart,
    element,
    joined,
    percent,
    shortened,
    spread,
    stretched,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from effnet_edge.parity.report.loss import Loss, LossKind

LABEL_CHARACTERS = 12
_LEAST_HEIGHT = 210.0
_AXIS = 20.0


@dataclass(frozen=True)
class Point:
    """A candidate: its time as a multiple of the baseline's, and its loss; both finite."""

    name: str
    label: str
    time: float
    loss: Loss


def on_frontier(points: Sequence[Point]) -> list[Point]:
    """Those than which no other is both faster and less lossy, the fastest first.

    Of equal ones the first.
    """
    best: list[Point] = []
    for point in sorted(points, key=lambda each: (each.time, each.loss.value)):
        if not best or point.loss.value < best[-1].loss.value:
            best.append(point)
    return best


def frontier(points: Sequence[Point], kind: LossKind, baseline: str) -> Markup | None:
    """Three columns: the axis of the loss, the points, and their names; None for fewer than two."""
    points = [
        each for each in points if math.isfinite(each.time) and math.isfinite(each.loss.value)
    ]
    if len(points) < 2:
        return None
    plot = max(_LEAST_HEIGHT, LINE * len(points) + 2 * LINE)
    across = Scale.around([0.0, *(each.time for each in points), 1.0], 0.04)
    down = Scale.around([0.0, *(end for each in points for end in each.loss.ends)])

    places = spread([down.down(each.loss.value, plot) for each in points], LINE, LINE, plot - 4)
    title = f"{kind.title} against time per picture: " + "; ".join(
        f"{each.name} {each.time:.2f} × {baseline}, {each.loss.value:.2f}" for each in points
    )
    ticks = down.ticks()
    axis = [
        text(0, down.down(tick, plot) + 4, f"{tick:g}", "tick", anchored=False) for tick in ticks
    ]
    names = [
        element(
            "text",
            joined(
                [
                    element("title", each.name),
                    element("tspan", shortened(each.label, LABEL_CHARACTERS)),
                ]
            ),
            x=4,
            y=f"{place + 4:g}",
            classes="name",
        )
        for each, place in zip(points, places, strict=True)
    ]
    lines = [_row(down.down(tick, plot), "zero" if tick == 0 else "grid") for tick in ticks]
    best = on_frontier(points)
    drawn = [*lines, *_time_axis(across, plot), _frontier_line(best, across, down, plot)]
    for each, place in zip(points, places, strict=True):
        x, y = percent(across.at(each.time)), f"{down.down(each.loss.value, plot):g}"
        drawn.append(element("line", x1=x, x2="100%", y1=y, y2=f"{place:g}", classes="leader"))
        if each.loss.interval:
            low, high = (f"{down.down(end, plot):g}" for end in each.loss.interval)
            drawn.append(element("line", x1=x, x2=x, y1=low, y2=high, classes="thin-interval"))
        dot = "dot mark" if each in best else "dot hollow"
        drawn.append(element("circle", element("title", each.name), cx=x, cy=y, r=5, classes=dot))
    full = plot + _AXIS
    return element(
        "div",
        joined(
            [
                chart(axis, full, f"{kind.title}, {kind.unit}", "axis"),
                chart(drawn, full, title),
                chart(names, full, "names of the candidates", "names"),
            ]
        ),
        classes="plot with-names",
    )


def _time_axis(across: Scale, plot: float) -> list[Markup]:
    parts = []
    for tick in across.ticks():
        if tick >= 0:
            at = percent(across.at(tick))
            parts.append(element("line", x1=at, x2=at, y1=0, y2=plot, classes="grid"))
            parts.append(text(across.at(tick), plot + LINE, f"{tick:g}", "tick"))
    return parts


def _row(y: float, classes: str) -> Markup:
    return element("line", x1="0%", x2="100%", y1=f"{y:g}", y2=f"{y:g}", classes=classes)


def _frontier_line(best: Sequence[Point], across: Scale, down: Scale, plot: float) -> Markup:
    path = " ".join(
        f"{across.at(each.time):.2f},{down.down(each.loss.value, plot):.2f}" for each in best
    )
    return stretched([element("polyline", points=path, classes="frontier")], plot)
