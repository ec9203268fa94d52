"""The page of a fleet: all bundles on all kinds of device at a glance, and each job below it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effnet_edge.fleet.campaign import GENERATOR
from effnet_edge.fleet.results import STATES
from effnet_edge.parity.report import destination, wording
from effnet_edge.parity.report.charts.loss_strip import common_scale, loss_strip, told_loss
from effnet_edge.parity.report.page import page_template

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from markupsafe import Markup

    from effnet_edge.fleet.results import Row


@dataclass(frozen=True)
class Shown:
    """A row with its loss drawn, where there is one."""

    row: Row
    strip: Markup | None
    loss: str


@dataclass(frozen=True)
class Section:
    """One bundle: what is drawn, its unit, and all its jobs."""

    bundle: str
    title: str
    jobs: Sequence[Shown]
    pictures: str


def check_page(path: Path) -> None:
    """Find out before any work whether it can be written; raises as `destination.check_page`."""
    destination.check_page(path, GENERATOR)


def write_page(document: dict[str, Any], rows: Sequence[Row], path: Path) -> None:
    """Write the page, whole or not at all; raises as `check_page`."""
    destination.write_page(path, GENERATOR, render_page(document, rows))


def headline(rows: Sequence[Row]) -> str:
    """The outcome of all jobs in a few words."""
    states = [row.state for row in rows]
    parts = [
        f"{states.count(state)} of {len(states)} jobs {what}"
        for state, what in (("failed", "FAILED"), ("error", "NOT DONE"))
        if state in states
    ]
    if parts:
        return ", ".join(parts)
    if "unlimited" in states:
        return "Measured, no limit set"
    if "unsure" in states:
        return "Passed on these pictures, but they are too few to be sure"
    return "Passed"


def render_page(document: dict[str, Any], rows: Sequence[Row]) -> str:
    """One page that asks for nothing from outside and runs no script.

    Raises BackendError without the extra [report].
    """
    bundles = list(dict.fromkeys(row.bundle for row in rows))
    columns = list(dict.fromkeys(row.column for row in rows))
    states = {row.state for row in rows}
    return page_template("fleet.html.j2", "effnet_edge.fleet").render(
        fleet=document,
        generator=GENERATOR,
        headline=headline(rows),
        overall=_overall(states),
        states=STATES,
        rows=rows,
        columns=columns,
        kinds=list(dict.fromkeys(row.loss_kind for row in rows if row.loss_kind)),
        matrix=[(name, [_at(rows, name, each) for each in columns]) for name in bundles],
        sections=[_section(name, [row for row in rows if row.bundle == name]) for name in bundles],
    )


def _overall(states: Collection[str]) -> str:
    if "failed" in states or "error" in states:
        return "failed"
    return next((state for state in ("unlimited", "unsure") if state in states), "passed")


def _at(rows: Sequence[Row], bundle: str, column: str) -> Row | None:
    return next((row for row in rows if (row.bundle, row.column) == (bundle, column)), None)


def _section(bundle: str, rows: Sequence[Row]) -> Section:
    scale = common_scale([row.loss for row in rows if row.loss])
    kind = next((row.loss_kind for row in rows if row.loss_kind), None)
    parity = next((row.parity for row in rows if row.parity), None)
    shown = [
        Shown(
            row,
            loss_strip(row.loss, row.loss_kind, scale, f"{bundle} {row.place}"),
            told_loss(row.loss, row.loss_kind),
        )
        if row.loss and row.loss_kind
        else Shown(row, None, "")
        for row in rows
    ]
    title = f"{kind.title}, {kind.unit}" if kind else ""
    return Section(bundle, title, shown, wording.told_pictures(parity) if parity else "")
