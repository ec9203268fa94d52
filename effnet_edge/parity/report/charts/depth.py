"""The error of every tensor from the input to the answer: what it adds, and what it passes on."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from effnet_edge import nonfinite
from effnet_edge.parity.report.charts.svg import (
    LINE,
    NARROWEST,
    Scale,
    chart,
    element,
    joined,
    percent,
    shortened,
    stretched,
    text,
    width_of,
)
from effnet_edge.parity.report.loss import error_percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from effnet_edge.parity.report.document import Document

EXACT_PERCENT = 0.3
"""A candidate none of whose tensors has a larger error is left out: 0.3 % is an SQNR of 50 dB."""

_PLOT = 140.0
_AXIS = 34.0
_DECADES = 4
_LONGEST = 12
_STAGE = re.compile(r"stages\.(\d+)\.")


@dataclass(frozen=True)
class TensorError:
    """One tensor's errors in per cent of its own strength.

    NaN where the candidate gives NaN; None where it was not measured.
    """

    name: str
    total: float | None
    added: float | None
    inherited: float | None

    @property
    def broken(self) -> bool:
        """Whether it is NaN or infinite."""
        return any(
            each is not None and not math.isfinite(each) for each in (self.total, self.added)
        )


def tensor_errors(candidate: Document) -> list[TensorError]:
    """Of all tensors that were compared, in the order of execution."""
    return [
        TensorError(
            layer["name"],
            *(_percent(layer[f"{which}sqnr_db"]) for which in ("", "added_", "inherited_")),
        )
        for layer in candidate["layers"] or []
    ]


def is_exact(errors: Sequence[TensorError]) -> bool:
    """Whether nothing in it could be seen in a chart."""
    return all(
        not each.broken
        and (each.total or 0) <= EXACT_PERCENT
        and (each.added or 0) <= EXACT_PERCENT
        for each in errors
    )


def common_decades(every: Sequence[Sequence[TensorError]]) -> Scale:
    """One logarithmic scale for all panels: at most four decades, as powers of ten."""
    found = [
        value
        for errors in every
        for each in errors
        for value in (each.total, each.added)
        if value is not None and math.isfinite(value) and value > 0
    ]
    high = math.ceil(math.log10(max(found, default=100.0)))
    low = math.floor(math.log10(min(found, default=1.0)))
    return Scale(max(min(low, high - 1), high - _DECADES), high)


def stage_of(tensor: str) -> str:
    """The part of the network: "stem", "0" … for the stages, or what comes before a foreign dot."""
    stage = _STAGE.match(tensor)
    return stage.group(1) if stage else tensor.partition(".")[0]


def error_by_depth(errors: Sequence[TensorError], scale: Scale, name: str) -> Markup:
    """A bar a tensor for what it adds, a line for what has piled up, and the stages below."""
    bands = _bands([each.name for each in errors])
    step = 100 / len(errors)
    decades = range(int(scale.low), int(scale.high) + 1)
    parts = [
        *_ground(bands, step, [scale.down(decade, _PLOT) for decade in decades]),
        stretched(_lines(errors, scale), _PLOT),
        *(_bar(each, (at + 0.5) * step, scale) for at, each in enumerate(errors)),
        *_stage_names(bands, step),
    ]
    axis = [
        text(0, scale.down(decade, _PLOT) + 4, f"{10.0**decade:g} %", "tick", anchor="start")
        for decade in decades
    ]
    title = (
        f"{name}: error of {len(errors)} tensors from the input to the answer; {_told_peak(errors)}"
    )
    full = _PLOT + _AXIS
    both = [chart(axis, full, "error, per cent of the tensor", "axis"), chart(parts, full, title)]
    return element("div", joined(both), classes="plot")


def _ground(
    bands: Sequence[tuple[str, int, int]], step: float, heights: Sequence[float]
) -> list[Markup]:
    """Every second band shaded, and a line a decade."""
    shaded = [
        element(
            "rect",
            x=percent(start * step),
            y=0,
            width=percent((stop - start) * step),
            height=_PLOT,
            classes="band",
        )
        for _, start, stop in bands[::2]
    ]
    lines = [
        element("line", x1="0%", x2="100%", y1=f"{y:g}", y2=f"{y:g}", classes="grid")
        for y in heights
    ]
    return [*shaded, *lines]


def _percent(decibels: nonfinite.JsonNumber) -> float | None:
    number = nonfinite.decode(decibels)
    return None if number is None else error_percent(number)


def _bands(names: Sequence[str]) -> list[tuple[str, int, int]]:
    """Parts of the network with their first tensor and the one behind their last.

    What follows the last stage is one band: the head.
    """
    parts = [stage_of(name) for name in names]
    stages = [at for at, name in enumerate(names) if _STAGE.match(name)]
    if stages:
        parts = [
            "stem" if at < stages[0] else "head" if at > stages[-1] else part
            for at, part in enumerate(parts)
        ]
    bands, at = [], 0
    for part, group in groupby(parts):
        length = len(list(group))
        bands.append((part, at, at + length))
        at += length
    return bands


def _stage_names(bands: Sequence[tuple[str, int, int]], step: float) -> list[Markup]:
    """Under their bands; stem and head, which are narrow, at the ends of a line of their own.

    Where there is not room for all, only those with the widest bands have a name.
    """
    ends = [(0.0, bands[0][0]), (100.0, bands[-1][0])][: len(bands)]
    named = [text(at, _PLOT + 2 * LINE, shortened(name, _LONGEST), "tick") for at, name in ends]
    inner = bands[1:-1]
    if any(name.isdecimal() for name, *_ in inner):
        named.append(text(50, _PLOT + 2 * LINE, "stages", "tick"))
    taken: list[tuple[float, float]] = []
    for full_name, start, stop in sorted(inner, key=lambda band: band[1] - band[2]):
        name = shortened(full_name, _LONGEST)
        middle, half = (start + stop) / 2 * step, 50 * width_of(name) / NARROWEST
        low, high = middle - half, middle + half
        if low >= 0 and high <= 100 and all(high <= a or low >= b for a, b in taken):
            taken.append((low, high))
            named.append(text(middle, _PLOT + LINE, name, "tick", anchor="middle"))
    return named


def _lines(errors: Sequence[TensorError], scale: Scale) -> list[Markup]:
    """What has piled up, as lines with gaps where it is no number."""
    step = 100 / len(errors)
    lines: list[Markup] = []
    for drawable, group in groupby(enumerate(errors), key=lambda pair: _finite(pair[1].total)):
        if drawable:
            points = " ".join(
                f"{(at + 0.5) * step:.2f},{_height(each.total or 0, scale):.1f}"
                for at, each in group
            )
            lines.append(element("polyline", points=points, classes="total"))
    return lines


def _bar(each: TensorError, at: float, scale: Scale) -> Markup:
    told = element(
        "title",
        f"{each.name}: adds {_told(each.added)}, inherits {_told(each.inherited)}, "
        f"in all {_told(each.total)}",
    )
    if each.broken:
        return element("text", joined([told, element("tspan", "✕")]), x=percent(at), y=12,
                       classes="broken", text_anchor="middle")  # fmt: skip
    added = each.added or 0.0
    return element(
        "line",
        told,
        x1=percent(at),
        x2=percent(at),
        y1=f"{_height(added, scale):.1f}",
        y2=f"{_PLOT:g}",
        classes="added",
    )


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _height(value: float, scale: Scale) -> float:
    return scale.down(math.log10(value), _PLOT) if value > 0 else _PLOT


def _told(value: float | None) -> str:
    return nonfinite.tell(value, ".2g", " %")


def _told_peak(errors: Sequence[TensorError]) -> str:
    if any(each.broken for each in errors):
        return "some are NaN"
    worst = max(errors, key=lambda each: each.added or 0)
    return f"{worst.name} adds most by itself, {_told(worst.added)}"
