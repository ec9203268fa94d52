"""Loss against time: which candidates are worth having."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.parity.report.charts.labels import Label, placed
from effnet_edge.parity.report.charts.svg import (
    LINE,
    Scale,
    chart,
    element,
    joined,
    percent,
    shortened,
    stretched,
    text,
    ticks_across,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from effnet_edge.parity.report.loss import Loss, LossKind

LABEL_CHARACTERS = 16
_LEAST_HEIGHT = 210.0
_AXIS = 20.0


@dataclass(frozen=True)
class Point:
    """A candidate: its time as a multiple of the baseline's, and its loss; both finite."""

    name: str
    label: str
    time: float
    loss: Loss


@dataclass(frozen=True)
class Allowed:
    """The most that is allowed of each, in the units of the points; None where nothing was said."""

    time: float | None = None
    loss: float | None = None


def on_frontier(points: Sequence[Point]) -> list[Point]:
    """Those than which no other is both faster and less lossy, the fastest first.

    Of equal ones the first.
    """
    best: list[Point] = []
    for point in sorted(points, key=lambda each: (each.time, each.loss.value)):
        if not best or point.loss.value < best[-1].loss.value:
            best.append(point)
    return best


def frontier(
    points: Sequence[Point], kind: LossKind, baseline: str, allowed: Allowed | None = None
) -> Markup | None:
    """The axis of the loss, and beside it the points with their names; None for fewer than two.

    Args:
        baseline: what the times are multiples of.
        allowed: limits, drawn as lines where they are among the points.
    """
    points = [
        each for each in points if math.isfinite(each.time) and math.isfinite(each.loss.value)
    ]
    if len(points) < 2:
        return None
    plot = max(_LEAST_HEIGHT, 2 * LINE * len(points))
    # Room for names on the right of the slowest.
    across = Scale(0.0, 1.35 * max(1.0, *(each.time for each in points)))
    down = Scale.around([0.0, *(end for each in points for end in each.loss.ends)])
    best = on_frontier(points)
    parts = [*_grid(across, down, plot), _line(best, across, down, plot)]
    parts += _limits(allowed, across, down, plot) if allowed else []
    for each in points:
        if each.loss.interval:
            x = percent(across.at(each.time))
            low, high = (f"{down.down(end, plot):g}" for end in each.loss.interval)
            parts.append(element("line", x1=x, x2=x, y1=low, y2=high, classes="thin-interval"))
    places = [(across.at(each.time), down.down(each.loss.value, plot)) for each in points]
    labels = placed(places, [shortened(each.label, LABEL_CHARACTERS) for each in points], plot)
    parts += [
        _point(each, place, label, "mark" if each in best else "hollow")
        for each, place, label in zip(points, places, labels, strict=True)
    ]
    axis = [
        text(0, down.down(tick, plot) + 4, told(tick), "tick", anchor="start")
        for tick in down.ticks()
    ]
    title = f"{kind.title} against time per picture: " + "; ".join(
        f"{each.name} takes {each.time:.2f} of {baseline}'s time and loses "
        f"{each.loss.value:.3g} {kind.unit}"
        for each in points
    )
    full = plot + _AXIS
    both = [chart(axis, full, f"{kind.title}, {kind.unit}", "axis"), chart(parts, full, title)]
    return element("div", joined(both), classes="plot")


def _grid(across: Scale, down: Scale, plot: float) -> list[Markup]:
    parts = []
    for tick in down.ticks():
        y = f"{down.down(tick, plot):g}"
        classes = "grid" if tick else "zero"
        parts.append(element("line", x1="0%", x2="100%", y1=y, y2=y, classes=classes))
    for tick in ticks_across(across, 5):
        at = percent(across.at(tick))
        parts.append(element("line", x1=at, x2=at, y1=0, y2=plot, classes="grid"))
        parts.append(text(across.at(tick), plot + LINE, f"{told(tick)} ×", "tick"))
    return parts


def _limits(allowed: Allowed, across: Scale, down: Scale, plot: float) -> list[Markup]:
    parts = []
    if allowed.time is not None and across.low < allowed.time < across.high:
        at = percent(across.at(allowed.time))
        parts.append(element("line", x1=at, x2=at, y1=0, y2=plot, classes="limit"))
    if allowed.loss is not None and down.low < allowed.loss < down.high:
        y = f"{down.down(allowed.loss, plot):g}"
        parts.append(element("line", x1="0%", x2="100%", y1=y, y2=y, classes="limit"))
    return parts


def _line(best: Sequence[Point], across: Scale, down: Scale, plot: float) -> Markup:
    path = " ".join(
        f"{across.at(each.time):.2f},{down.down(each.loss.value, plot):.2f}" for each in best
    )
    return stretched([element("polyline", points=path, classes="frontier")], plot)


def _point(each: Point, place: tuple[float, float], label: Label, look: str) -> Markup:
    """A group whose origin is the point: what is in it is in pixels."""
    parts = [
        element("title", each.name),
        element("line", x1=0, y1=0, x2=label.dx, y2=label.dy, classes="leader"),
        element("circle", cx=0, cy=0, r=5, classes=f"dot {look}"),
        element(
            "text", label.text, x=label.dx, y=label.dy + 4, text_anchor=label.anchor, classes="name"
        ),
    ]
    return element("svg", joined(parts), x=percent(place[0]), y=f"{place[1]:g}", overflow="visible")
