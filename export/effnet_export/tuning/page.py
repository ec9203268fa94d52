"""The page of a tune: the frontier as a picture, and every candidate below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge import nonfinite
from effnet_edge.parity.measures.table import INTERVALS
from effnet_edge.parity.report import destination
from effnet_edge.parity.report.charts.frontier import Allowed, Point, frontier
from effnet_edge.parity.report.loss import Loss, divergence_kind, in_unit
from effnet_edge.parity.report.page import page_template

if TYPE_CHECKING:
    from pathlib import Path

    from markupsafe import Markup

    from effnet_export.tuning.outcome import Tuned

GENERATOR = "effnet-edge tune"


def check_page(path: Path) -> None:
    """Find out before any work whether it can be written; raises as `destination.check_page`."""
    destination.check_page(path, GENERATOR)


def write_page(tuned: Tuned, title: str, machine: str, path: Path) -> None:
    """Write the page, whole or not at all; raises as `check_page`.

    Args:
        title: the network and the target.
        machine: that the times are of.
    """
    destination.write_page(path, GENERATOR, render_page(tuned, title, machine))


def render_page(tuned: Tuned, title: str, machine: str) -> str:
    """One page that asks for nothing from outside and runs no script.

    Raises BackendError without the extra [report].
    """
    _, loss, _ = tuned.measured[0]
    return page_template("tune.html.j2", "effnet_export.tuning").render(
        tuned=tuned,
        generator=GENERATOR,
        title=title,
        machine=machine,
        intervals=INTERVALS,
        number=nonfinite.tell,
        limits=tuned.limits.describe(loss),
        kind=divergence_kind(loss.output),
        picture=_picture(tuned),
        measures=tuned.measures,
        output=loss.output,
    )


def _picture(tuned: Tuned) -> Markup | None:
    baseline, limits = tuned.baseline, tuned.limits
    points = [
        Point(tried.name, tried.name, tuned.ratio(measured), Loss(measured.loss, None, None))
        for tried, _, measured in tuned.measured
    ]
    _, loss, _ = tuned.measured[0]
    kind = divergence_kind(loss.output)
    limit = limits.loss.limits.get(kind.limit)
    allowed = Allowed(
        None if limits.seconds is None else limits.seconds / baseline.median,
        None if limit is None else in_unit(kind, limit),
    )
    return frontier(points, kind, baseline.name, allowed)
