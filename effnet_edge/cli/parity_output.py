"""What `effnet-edge parity` prints of its document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from effnet_edge.cli import batch_sizes
from effnet_edge.cli.common import console
from effnet_edge.text import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from effnet_edge.parity.report.document import Document

SHOWN_LAYERS = 12


def tell(document: Document, changed: Sequence[str]) -> None:
    """Print the table, what stands out in it, and a verdict a candidate.

    Args:
        changed: lines about an earlier report.
    """
    out = console()
    for line in (line for file in document["files"] for line in file["told"]):
        out.print(line)
    out.print(_table(document))
    for each in document["candidates"]:
        _tell_candidate(each)
    for line in document["skipped"]:
        click.echo(f"skipped: {plain(line)}", err=True)
    for line in changed:
        out.print(f"changed: {line}", markup=False)
    for each in document["candidates"]:
        for line in _verdict(document, each):
            out.print(line, markup=False)


def _tell_candidate(candidate: Document) -> None:
    out = console()
    if candidate["layers"] is not None:
        out.print(_layer_table(candidate))
    faults = candidate["faults"]
    if faults:
        first = faults[0]
        out.print(
            f"{candidate['candidate']}: first node at fault: {first['node']} "
            f"({first['operation']}): {first['problem']}",
            markup=False,
        )
        if len(faults) > 1:
            others = ", ".join(fault["node"] for fault in faults[1:6])
            out.print(f"  {len(faults) - 1} more: {others}", markup=False)
    elif faults is not None:
        out.print(
            f"{candidate['candidate']}: none of {candidate['nodes_judged']} nodes is at fault "
            "by itself",
            markup=False,
        )


def _verdict(document: Document, each: Document) -> list[str]:
    from effnet_edge.parity.measures.gates import tell_verdict
    from effnet_edge.parity.report.wording import too_few_pictures

    name = each["candidate"]
    lines = [f"{name}: {check['text']}" for check in each["checks"] if check["passed"]]
    doubt = too_few_pictures(each)
    if doubt:
        lines.append(f"{name}: {doubt}")
    if each["failures"]:
        return [*lines, *(f"FAILED: {name}: {failure}" for failure in each["failures"])]
    if each["passed"] is None:
        lines.append(f"{name}: {tell_verdict(None)}")
    lines.append(f"{name} ({each['candidate_precision']}) {_agreement(document, each)}")
    return [*lines, *batch_sizes.told_batch_sizes(each)]


def _agreement(document: Document, each: Document) -> str:
    from effnet_edge.parity.measures.table import BY_KEY, limited_measure

    reference, pictures = document["reference"], f"{document['images']} pictures"
    measure = limited_measure("min_agreement", document["output"])
    if document["output"] == "regression":
        share = BY_KEY["nrmse"].tell(each["nrmse"])
        return (
            f"gives the values of {reference} with an RMSE of {share} of their spread on {pictures}"
        )
    if measure is None:
        decibels = BY_KEY["sqnr_db"].tell(each["sqnr_db"])
        return f"gives the features of {reference} with an SQNR of {decibels} on {pictures}"
    what = "on all labels of" if document["output"] == "multi-label" else "on"
    return f"agrees with {reference} {what} {measure.tell(each[measure.key])} of {pictures}"


def _table(document: Document) -> Table:
    from rich.table import Table
    from rich.text import Text

    from effnet_edge.parity.report.wording import told_pictures

    table = Table(
        title=Text(
            f"against {plain(document['reference'])} ({document['reference_precision']})\n"
            f"{plain(told_pictures(document))}"
        ),
        title_justify="left",
    )
    table.add_column("")
    columns = []
    for each in document["candidates"]:
        heading = Text(plain(f"{each['candidate']} ({each['candidate_precision']})"))
        table.add_column(heading, justify="right")
        columns.append(_measures(each, document) | _costs(document, each))
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table


def _measures(each: Document, document: Document) -> dict[str, str]:
    from effnet_edge.nonfinite import tell
    from effnet_edge.parity.measures.table import measures_of

    output, as_probabilities = document["output"], document["as_probabilities"]
    rows = {
        measure.title(output, as_probabilities=as_probabilities): measure.tell_result(each)
        for measure in measures_of(output)
    }
    if each["calibration_error"]:
        rows["calibration error"] = tell(100 * each["calibration_error"]["candidate"], ".2f", " %")
    for k, drop in (each["accuracy"] or {}).items():
        rows["accuracy" if output == "multi-label" else k.replace("top", "top-")] = (
            f"{drop['reference_percent']:.2f} → {drop['candidate_percent']:.2f} %"
        )
    for row in each["by_output"] if each["truth"] else ():
        before, now = (tell(row[f"{side}_mae"], ".4g") for side in ("reference", "candidate"))
        rows[f"mean absolute error: {row['label']}"] = f"{before} → {now}"
    if each["statistics"]:
        rows["McNemar p"] = tell(each["statistics"]["mcnemar_p"])
        told = each["statistics"]["told_drop_points"]
        least = "at least " if each["statistics"]["images_to_tell_it_is_least"] else ""
        needed = each["statistics"]["images_to_tell_it"]
        rows[f"pictures needed to see {told} points"] = f"{least}{needed}"
    return rows


def _costs(document: Document, each: Document) -> dict[str, str]:
    """The model's size, and with --speed its speed against the baseline's."""
    from effnet_edge.nonfinite import tell
    from effnet_edge.parity.report.wording import megabytes

    rows = {"size": megabytes(each["cost"]["model_bytes"])}
    baseline = document["baseline"]
    if baseline and baseline["rounds"]:
        title = f"times as fast as {baseline['name']}"
        rows[title] = tell(each["cost"]["times_as_fast"], ".2f")
    return rows


def _layer_table(candidate: Document) -> Table:
    from rich.table import Table
    from rich.text import Text

    from effnet_edge.nonfinite import tell
    from effnet_edge.parity.report.document import worst_layers

    table = Table(
        title=Text(
            f"{plain(candidate['candidate'])}: of {len(candidate['layers'])} tensors, "
            "those that add most"
        ),
        title_justify="left",
    )
    for column in ("tensor", "kernel", "SQNR", "added", "inherited", "clipped", "dead"):
        table.add_column(column, justify="left" if column in ("tensor", "kernel") else "right")
    for layer in worst_layers(candidate, SHOWN_LAYERS):
        clipped = [each["clipped"] for each in layer["saturation"]]
        decibels = (layer[key] for key in ("sqnr_db", "added_sqnr_db", "inherited_sqnr_db"))
        table.add_row(
            Text(plain(layer["name"])),
            Text(plain(f"{layer['operation']} {layer['precision']}")),
            *(tell(each, ".1f", " dB") for each in decibels),
            tell(100 * max(clipped), ".2g", " %") if clipped else "",
            f"{layer['dead_channels']} of {layer['channels']}",
        )
    return table
