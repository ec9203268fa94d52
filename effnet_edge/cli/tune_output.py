"""What a person is shown of a tune: a table of all that was tried, and what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from effnet_edge.cli.common import console, print_document, say, settings
from effnet_edge.cli.shown_paths import for_a_shell, shown_path
from effnet_edge.text import plain

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from effnet_edge.bundle import Bundle
    from effnet_edge.parity.measures.table import Measure
    from effnet_export.tuning.carrying import Carried
    from effnet_export.tuning.outcome import Tuned


def show(tuned: Tuned | Carried) -> None:
    """Print all that was tried, and what was written."""
    if settings().json:
        print_document(tuned.to_dict())
        return
    from effnet_export.tuning.carrying import Carried

    table = _table_of_losses(tuned) if isinstance(tuned, Carried) else _table(tuned)
    console().print(table)
    for tried in tuned.tried:
        if tried.problem is not None:
            click.echo(f"{tried.name}, {tuned.place(tried)}: {plain(tried.problem)}")
    if tuned.bundle is None:
        return
    if isinstance(tuned, Carried):
        _tell_carried(tuned, tuned.bundle)
    else:
        _tell_chosen(tuned, tuned.bundle)


def _tell_carried(carried: Carried, bundle: Bundle) -> None:
    names = ", ".join(each.name for each in carried.carried)
    click.echo(f"{names}: {plain(shown_path(bundle))}")
    several = ", which times them there and keeps the fastest" if bundle.manifest.is_open else ""
    say(f"Next: on the device, effnet-edge build {for_a_shell(bundle)}{several}")


def _tell_chosen(tuned: Tuned, bundle: Bundle) -> None:
    assert tuned.chosen is not None
    _, loss, _ = tuned.measured[0]
    why = (
        f"none within {tuned.limits.describe(loss)} is faster but for chance"
        if tuned.limits.any
        else "no limit was set: as export --int8"
    )
    click.echo(f"{tuned.chosen.name}, {why}: {plain(shown_path(bundle))}")
    say(f"Next: effnet-edge parity {for_a_shell(bundle)} --images PHOTOS, on other pictures")


def _table(tuned: Tuned) -> Table:
    from rich.table import Table
    from rich.text import Text

    _, loss, _ = tuned.measured[0]
    table = Table(
        title=Text(
            f"Loss against PyTorch on {plain(tuned.judged_on)}\n"
            f"and time of a call on this machine, in turns, {len(tuned.baseline.seconds)} rounds"
        ),
        title_justify="left",
    )
    table.add_column("candidate", no_wrap=True)
    table.add_column("made of")
    table.add_column("ran in")
    for measure in tuned.measures:
        table.add_column(measure.title(loss.output), justify="right")
    own = tuned.as_it_is
    compared = [tuned.baseline, *([own] if own else [])]
    times = (f"of {each.name}" for each in compared)
    for heading in ("least ms", "median", "middle half", *times, *tuned.beside):
        table.add_column(heading, justify="right")
    table.add_column("")
    for tried, lost, measured in tuned.measured:
        low, high = measured.middle_half
        document = lost.to_dict()
        table.add_row(
            tried.name,
            tried.made_of,
            lost.candidate_precision,
            *(_told_loss(measure, document) for measure in tuned.measures),
            *(f"{1e3 * seconds:.2f}" for seconds in (measured.least, measured.median)),
            f"{1e3 * low:.2f} to {1e3 * high:.2f}",
            *(f"{tuned.ratio(measured, each):.2f}" for each in compared),
            *tuned.told_beside(tried),
            tuned.place(tried),
        )
    return table


def _table_of_losses(carried: Carried) -> Table:
    from rich.table import Table
    from rich.text import Text

    _, loss = carried.judged[0]
    title = Text(f"Loss against PyTorch on {plain(carried.judged_on)}, simulated")
    table = Table(title=title, title_justify="left")
    table.add_column("candidate", no_wrap=True)
    table.add_column("made of")
    table.add_column("ran in")
    for measure in carried.measures:
        table.add_column(measure.title(loss.output), justify="right")
    table.add_column("MB", justify="right")
    table.add_column("")
    for tried, own in carried.judged:
        document = own.to_dict()
        table.add_row(
            tried.name,
            tried.made_of,
            own.candidate_precision,
            *(_told_loss(measure, document) for measure in carried.measures),
            f"{(tried.bytes or 0) / 1e6:.1f}",
            carried.place(tried),
        )
    return table


def _told_loss(measure: Measure, result: dict[str, Any]) -> Text:
    """A loss, and below it the ends of its 95 % interval, if it has one."""
    from rich.text import Text

    from effnet_edge import nonfinite
    from effnet_edge.parity.measures.table import INTERVALS

    told = measure.tell(result[measure.key])
    ends = result[INTERVALS].get(measure.key)
    if ends is not None:
        told += f"\n{' to '.join(nonfinite.tell(end, '.1f') for end in ends)}"
    return Text(told)
