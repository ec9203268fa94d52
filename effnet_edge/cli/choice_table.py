"""The graphs among which a device chooses, or chose, as a table and in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from effnet_edge.bundle import Contender, Manifest
    from effnet_edge.parity.measures.table import Measure


def choice_table(manifest: Manifest) -> Table:
    """What each graph loses and takes, and what became of it."""
    from rich.table import Table
    from rich.text import Text

    choice = manifest.choice
    assert choice is not None
    measures, output = _measures(manifest), manifest.output.kind
    table = Table(
        title=Text(
            f"Loss against PyTorch on {choice.contenders[0].loss.images} pictures, simulated where "
            "the graphs were made,\nand time of a call on this device, in turns"
        ),
        title_justify="left",
    )
    table.add_column("graph", no_wrap=True)
    table.add_column("made of")
    for measure in measures:
        table.add_column(measure.title(output), justify="right")
    for heading in ("least ms", "median", "middle half"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for each in choice.contenders:
        table.add_row(
            each.name,
            each.made_of,
            *(measure.tell_held(each.loss.measures.get(measure.key)) for measure in measures),
            *_told_times(each),
            _became(each, choice.chosen),
        )
    return table


def told_contenders(manifest: Manifest) -> dict[str, str]:
    """A line for each graph, by its name."""
    assert manifest.choice is not None
    measures, output = _measures(manifest), manifest.output.kind
    lines = {}
    for each in manifest.choice.contenders:
        loss = each.loss
        told = [f"{m.title(output)} {m.tell_held(loss.measures.get(m.key))}" for m in measures]
        if each.latency is not None:
            told.append(f"{1e3 * each.latency.median:.2f} ms")
        told.append(_became(each, manifest.choice.chosen))
        lines[each.name] = ", ".join([each.made_of, *filter(None, told)])
    return lines


def _measures(manifest: Manifest) -> list[Measure]:
    from effnet_edge.parity.report.loss import telling_measures

    assert manifest.choice is not None
    losses = [each.loss.measures for each in manifest.choice.contenders]
    told = telling_measures(manifest.output.kind)
    return [each for each in told if any(each.key in measured for measured in losses)]


def _told_times(contender: Contender) -> tuple[str, str, str]:
    latency = contender.latency
    if latency is None:
        return ("", "", "")
    low, high = (f"{1e3 * each:.2f}" for each in latency.middle_half)
    return f"{1e3 * latency.least:.2f}", f"{1e3 * latency.median:.2f}", f"{low} to {high}"


def _became(contender: Contender, chosen: str | None) -> str:
    if contender.problem is not None:
        return f"not built: {contender.problem}"
    if chosen is None:
        return ""
    return "kept" if contender.name == chosen else "not kept"
