"""The values of a rounded tensor, and the ends of the integers' range."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from effnet_edge import nonfinite
from effnet_edge.parity.report.charts.svg import Scale, chart, element, percent, stretched, text

if TYPE_CHECKING:
    from markupsafe import Markup

    from effnet_edge.nonfinite import JsonNumber
    from effnet_edge.parity.report.document import Document

SHOWN = 6
_HEIGHT = 70.0
_THINNEST = 0.3


def rounded_worst(candidate: Document) -> list[tuple[Document, Document]]:
    """The rounded tensors with the largest error, each with what its grid does to it."""
    rounded = [
        (layer, saturation)
        for layer in candidate["layers"] or []
        for saturation in layer["saturation"]
        if saturation["histogram"]["counts"]
    ]
    return sorted(rounded, key=lambda pair: _rank(pair[0]["sqnr_db"]))[:SHOWN]


def histogram(layer: Document, saturation: Document) -> Markup:
    """Counts on a logarithmic scale, values across, and a line at each end of the grid."""
    values = saturation["histogram"]
    counts = values["counts"]
    low, high = min(values["low"], saturation["low"]), max(values["high"], saturation["high"])
    across = Scale(low, high if high > low else low + 1)
    width = (values["high"] - values["low"]) / len(counts)
    edges = [across.at(values["low"] + at * width) for at in range(len(counts) + 1)]
    most = math.log10(1 + max(counts))
    heights = [_HEIGHT * math.log10(1 + count) / most for count in counts]
    bars = [
        element(
            "rect",
            x=f"{left:.2f}",
            width=f"{max(right - left, _THINNEST):.2f}",
            y=f"{_HEIGHT - height:.1f}",
            height=f"{height:.1f}",
            classes="count",
        )
        for (left, right), height in zip(pairwise(edges), heights, strict=True)
        if height
    ]
    parts = [stretched(bars, _HEIGHT)]
    for end in (saturation["low"], saturation["high"]):
        at = percent(across.at(end))
        parts.append(element("line", x1=at, x2=at, y1=0, y2=_HEIGHT, classes="limit"))
    parts.append(text(0, _HEIGHT + 14, f"{low:.3g}", "tick"))
    parts.append(text(100, _HEIGHT + 14, f"{high:.3g}", "tick"))
    title = (
        f"{layer['name']}: values from {values['low']:.3g} to {values['high']:.3g}, integers from "
        f"{saturation['low']:.3g} to {saturation['high']:.3g}"
    )
    return chart(parts, _HEIGHT + 18, title)


def _rank(decibels: JsonNumber) -> float:
    """Sorts what is NaN first, what was not measured last."""
    number = nonfinite.decode(decibels)
    return math.inf if number is None else -math.inf if math.isnan(number) else number
