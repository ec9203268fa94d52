"""The page of `effnet-edge bench`: how the times of the calls are spread."""

from __future__ import annotations

import math
import shlex
import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge import nonfinite
from effnet_edge.bench.other_work import told_other_work
from effnet_edge.bench.parts import by_part
from effnet_edge.machine import Machine
from effnet_edge.parity.report import destination
from effnet_edge.parity.report.charts.svg import (
    Scale,
    chart,
    element,
    percent,
    stretched,
    text,
)
from effnet_edge.parity.report.page import page_template

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from markupsafe import Markup

    from effnet_edge.bench import ModelTiming, Timing

GENERATOR = "effnet-edge bench"
_HEIGHT = 60.0
_AXIS = 18.0
_BINS = 80


@dataclass(frozen=True)
class Shown:
    """One model, or its way from files: its name, its numbers in words, and its histogram."""

    name: str
    ran_in: str
    timing: Timing
    images_per_second: float
    spread: Markup


def check_page(path: Path) -> None:
    """Find out before any work whether it can be written; raises as `destination.check_page`."""
    destination.check_page(path, GENERATOR)


def write_page(timings: Sequence[ModelTiming], path: Path) -> None:
    """Write the page, whole or not at all; raises as `check_page`."""
    destination.write_page(path, GENERATOR, render_page(timings))


def render_page(timings: Sequence[ModelTiming]) -> str:
    """One page that asks for nothing from outside and runs no script.

    Raises BackendError without the extra [report].
    """
    kinds = [("The engine alone", _shown(timings, from_files=False))]
    if any(each.from_files for each in timings):
        kinds.append(("From the file to the label", _shown(timings, from_files=True)))
    return page_template("bench.html.j2", "effnet_edge.cli").render(
        generator=GENERATOR,
        timings=timings,
        kinds=kinds,
        number=nonfinite.tell,
        layers=[(each.path, by_part(each.layers)) for each in timings if each.layers],
        warning=told_other_work(timings[0].other_work),
        machine=Machine.here(),
        command=shlex.join(["effnet-edge", *sys.argv[1:]]),
    )


def _shown(timings: Sequence[ModelTiming], *, from_files: bool) -> list[Shown]:
    """All of one kind, on one scale."""
    every = [
        (each, each.from_files, each.seconds_from_files)
        if from_files
        else (each, each.timing, each.seconds)
        for each in timings
    ]
    scale = _common_scale([seconds for _, _, seconds in every if seconds])
    return [
        Shown(
            each.path,
            f"{each.execution_precision}, {each.device}",
            timing,
            each.batch * timing.throughput,
            histogram(seconds, scale, each.path),
        )
        for each, timing, seconds in every
        if timing is not None
    ]


def _common_scale(every: Sequence[Sequence[float]]) -> Scale:
    """Logarithmic, in decades of milliseconds; one call in a hundred may lie beyond its end."""
    low = min(min(seconds) for seconds in every)
    high = max(float(np.percentile(seconds, 99)) for seconds in every)
    return Scale.around([math.log10(1e3 * low), math.log10(1e3 * high)], margin=0.05)


def histogram(seconds: Sequence[float], scale: Scale, name: str) -> Markup:
    """How many calls took how long, and a line at their median; those beyond the end are in it."""
    places = np.clip([math.log10(1e3 * each) for each in seconds], scale.low, scale.high)
    counts, ends = np.histogram(places, bins=_BINS, range=(scale.low, scale.high))
    most = int(counts.max())
    bars = [
        element(
            "rect",
            x=f"{scale.at(left):.2f}",
            width=f"{scale.at(right) - scale.at(left):.2f}",
            y=f"{_HEIGHT * (1 - count / most):.1f}",
            height=f"{_HEIGHT * count / most:.1f}",
            classes="count",
        )
        for (left, right), count in zip(pairwise(ends), counts, strict=True)
        if count
    ]
    parts = []
    for milliseconds in _round_values(scale):
        at = scale.at(math.log10(milliseconds))
        parts.append(
            element("line", x1=percent(at), x2=percent(at), y1=0, y2=_HEIGHT, classes="grid")
        )
        parts.append(text(at, _HEIGHT + 14, f"{milliseconds:g} ms", "tick"))
    parts.append(stretched(bars, _HEIGHT))
    middle = float(np.median(seconds))
    median = percent(scale.at(math.log10(1e3 * middle)))
    parts.append(element("line", x1=median, x2=median, y1=0, y2=_HEIGHT, classes="limit"))
    title = f"{name}: the median of {len(seconds)} calls is {1e3 * middle:.2f} ms"
    return chart(parts, _HEIGHT + _AXIS, title)


def _round_values(scale: Scale, most: int = 6) -> list[float]:
    """Round milliseconds on the scale, `most` of them at most and one at least."""
    decades = range(math.floor(scale.low), math.ceil(scale.high) + 1)
    for factors in ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1,)):
        found = [
            factor * 10.0**decade
            for decade in decades
            for factor in factors
            if scale.low <= math.log10(factor * 10.0**decade) <= scale.high
        ]
        if len(found) < 2:  # the times are so alike that steps of a factor pass them by
            return Scale(10.0**scale.low, 10.0**scale.high).ticks(most)
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]
