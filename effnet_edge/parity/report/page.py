"""The page: what a person looks at first, and the details folded below it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from effnet_edge import nonfinite
from effnet_edge.extras import needed_for
from effnet_edge.parity.measures.gates import tell_verdict
from effnet_edge.parity.measures.table import measures_of
from effnet_edge.parity.report import wording
from effnet_edge.parity.report.charts import depth, ranges
from effnet_edge.parity.report.charts.frontier import Point, frontier
from effnet_edge.parity.report.charts.loss_strip import common_scale, loss_strip, told_loss
from effnet_edge.parity.report.destination import GENERATOR
from effnet_edge.parity.report.document import worst_layers
from effnet_edge.parity.report.loss import loss_kind, loss_of
from effnet_edge.text import plain_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Template
    from markupsafe import Markup

    from effnet_edge.parity.report.document import Document

_SEPARATORS = "-_/. "
_WORST_NAMED = 3
_IN_FRONT = 4


def render_html(document: Document, changed: Sequence[str] = ()) -> str:
    """One page that asks for nothing from outside and runs no script.

    Raises BackendError without the extra [report].
    """
    rows = _rows(document)
    return page_template("report.html.j2", "effnet_edge.parity.report").render(
        report=document,
        generator=GENERATOR,
        measures=measures_of(document["output"]),
        number=nonfinite.tell,
        told_verdict=tell_verdict,
        wording=wording,
        worst_layers=worst_layers,
        changed=changed,
        kind=loss_kind(document),
        rows=rows,
        in_front=_IN_FRONT,
        answers_first=_answers_first(rows),
        frontier=_frontier(document),
        depth=_depth(document),
        exact_percent=depth.EXACT_PERCENT,
        ranges=[_ranges(each) for each in document["candidates"]],
    )


@dataclass(frozen=True)
class PageTemplate:
    """What all pages are made by; see `page_template`."""

    _template: Template

    def render(self, **given: object) -> str:
        """The page: of the text that it is given, what HTML forbids is told by its escape."""
        return plain_lines(self._template.render(**given))


def page_template(name: str, package: str) -> PageTemplate:
    """A template of a package's own folder `templates`, or of this one's.

    What it is given is text and never markup, and a name that it is not given is an error.

    Raises:
        BackendError: the extra [report] is not installed.
    """
    with needed_for("a report", "report"):
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    packages = dict.fromkeys((package, "effnet_edge.parity.report"))
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(each, "templates") for each in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return PageTemplate(environment.get_template(name))


@dataclass(frozen=True)
class Row:
    """One candidate at a glance."""

    candidate: Document
    state: wording.State
    answer: str
    doubt: str | None
    loss: str
    limited: bool
    strip: Markup | None
    speed: str
    speed_range: str
    size: str
    size_part: str


def _rows(document: Document) -> list[Row]:
    losses = [loss_of(document, each) for each in document["candidates"]]
    kind, scale = loss_kind(document), common_scale(losses)
    return [
        Row(
            candidate=each,
            state=wording.state_of(each),
            answer=wording.answer(document, each),
            doubt=wording.too_few_pictures(each),
            loss=told_loss(loss, kind) + _rounding(each),
            limited=loss.limit is not None,
            strip=loss_strip(loss, kind, scale, each["candidate"]),
            speed=_speed(document, each),
            speed_range=_speed_range(document, each),
            size=wording.megabytes(each["cost"]["model_bytes"]),
            size_part=wording.size_of(document, each),
        )
        for each, loss in zip(document["candidates"], losses, strict=True)
    ]


def _rounding(candidate: Document) -> str:
    return "; the same but for rounding" if candidate["same_but_for_rounding"] else ""


def _answers_first(rows: Sequence[Row]) -> list[Row]:
    """Those that are not folded: all of a few; of many all that failed, or else the first."""
    if len(rows) <= _IN_FRONT:
        return list(rows)
    return [row for row in rows if row.state == "failed"] or list(rows[:_IN_FRONT])


def _speed(document: Document, candidate: Document) -> str:
    times = candidate["cost"]["times_as_fast"]
    if times is None:
        return nonfinite.NOT_MEASURED
    if wording.is_baseline(document, candidate):
        return "1 ×"
    return f"{times:.2f} ×"


def _speed_range(document: Document, candidate: Document) -> str:
    middle_half = candidate["cost"]["middle_half"]
    if middle_half is None:
        return ""
    if wording.is_baseline(document, candidate):
        return "the others are told against it"
    low, high = middle_half
    return f"{low:.2f} to {high:.2f} in half of the rounds"


def short_names(names: Sequence[str]) -> list[str]:
    """What tells the names apart: without what all begin with, up to a hyphen, slash or dot."""
    if len(names) < 2:
        return list(names)
    columns = zip(*names, strict=False)
    common = "".join(column[0] for column in takewhile(lambda each: len({*each}) == 1, columns))
    cut = max(common.rfind(separator) for separator in _SEPARATORS) + 1
    shorter = [name[cut:] for name in names]
    return shorter if all(shorter) else list(names)


def _frontier(document: Document) -> Markup | None:
    candidates = document["candidates"]
    labels = short_names([each["candidate"] for each in candidates])
    points = [
        Point(each["candidate"], label, 1 / times, loss_of(document, each))
        for each, label in zip(candidates, labels, strict=True)
        if (times := each["cost"]["times_as_fast"]) is not None
    ]
    baseline = document["baseline"]
    return frontier(points, loss_kind(document), baseline["name"]) if baseline else None


@dataclass(frozen=True)
class Panel:
    """The error by depth of one candidate, and the tensors that add most of it, in words."""

    name: str
    chart: Markup
    worst: list[str]


@dataclass(frozen=True)
class Depth:
    """All candidates whose layers were compared: those with an error to see, and the others."""

    panels: list[Panel]
    exact: list[str]


def _depth(document: Document) -> Depth | None:
    every = {
        index: errors
        for index, each in enumerate(document["candidates"])
        if (errors := depth.tensor_errors(each))
    }
    if not every:
        return None
    names = [each["candidate"] for each in document["candidates"]]
    seen = {index: errors for index, errors in every.items() if not depth.is_exact(errors)}
    scale = depth.common_decades(list(seen.values()))
    return Depth(
        [
            Panel(
                names[index],
                depth.error_by_depth(errors, scale, names[index]),
                _worst(errors),
            )
            for index, errors in seen.items()
        ],
        [names[index] for index in every.keys() - seen.keys()],
    )


def _worst(errors: Sequence[depth.TensorError]) -> list[str]:
    broken = [each for each in errors if each.broken]
    if broken:
        return [f"{each.name} NaN" for each in broken[:_WORST_NAMED]]
    ordered = sorted(errors, key=lambda each: -(each.added or 0))[:_WORST_NAMED]
    return [f"{each.name} {nonfinite.tell(each.added, '.2g', ' %')}" for each in ordered]


def _ranges(candidate: Document) -> list[tuple[str, float, Markup]]:
    """Of each tensor shown: its name, the share that is clipped in per cent, and its histogram."""
    return [
        (layer["name"], 100 * saturation["clipped"], ranges.histogram(layer, saturation))
        for layer, saturation in ranges.rounded_worst(candidate)
        if math.isfinite(saturation["clipped"])
    ]
