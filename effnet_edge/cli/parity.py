"""`effnet-edge parity`: is it still the same model?"""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from effnet_edge.cli import batch_sizes
from effnet_edge.cli.common import (
    common_options,
    console,
    print_json,
    progress_bar,
    say,
    settings,
)
from effnet_edge.cli.engine import engine_options
from effnet_edge.cli.network_options import NetworkOf, network_options
from effnet_edge.outputs import OUTPUT_NAMES
from effnet_edge.text import plain

if TYPE_CHECKING:
    from rich.table import Table

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity import Gate
    from effnet_edge.parity.measures.table import Limit
    from effnet_edge.parity.report.document import Document, Examined
    from effnet_edge.parity.study import Study
    from effnet_edge.pictures.protocol import Pictures
    from effnet_export.opening import Models

EMBEDDED_PICTURES = 64
LAYER_PICTURES = 16
BISECTED_PICTURES = 2
SHOWN_LAYERS = 12

# Under this key the context holds the limits that were given, by option.
_LIMITS = f"{__name__}.limits"

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class _GatedCommand(click.Command):
    """Has an option for every limit of the table of measures, which is only read when needed."""

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        """Those that are declared, and the limits after `--gates`."""
        from effnet_edge.parity.measures.table import LIMITS

        declared = super().get_params(context)
        after = 1 + [parameter.name for parameter in declared].index("gates")
        limits = sorted(LIMITS.values(), key=lambda limit: limit.option)
        return [*declared[:after], *map(_option, limits), *declared[after:]]


def _option(limit: Limit) -> click.Option:
    return click.Option(
        [f"--{limit.option}"],
        type=float,
        metavar=limit.metavar,
        expose_value=False,
        callback=_set_limit,
        help=f"Gate: {'at least' if limit.at_least else 'at most'} this {limit.subject}.",
    )


def _set_limit(context: click.Context, option: click.Parameter, value: float | None) -> None:
    if value is not None:
        limits: dict[str, float] = context.meta.setdefault(_LIMITS, {})
        limits[option.opts[0].removeprefix("--")] = value


@click.command(
    "parity", cls=_GatedCommand, short_help="Compare bundles with PyTorch, or any two models."
)
@click.argument("candidates", metavar="MODEL…", nargs=-1, required=True)
@click.option(
    "--reference",
    default="torch",
    show_default=True,
    metavar="torch|MODEL",
    help="What to compare with; 'torch' is the network that the bundle was made from.",
)
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Pictures; labelled if their folders are named by class. [default: embedded photos]",
)
@click.option(
    "--labels",
    type=_FILE,
    metavar="CSV",
    help="Labelled pictures: columns path and class_index, wnid or label.",
)
@click.option("--limit", type=click.IntRange(1), help="So many pictures of the set, at random.")
@click.option("--layers", is_flag=True, help="Compare every layer: what it adds, what it inherits.")
@click.option("--bisect", is_flag=True, help="Name the nodes at fault, even if all gates pass.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Write a report; JSON and JUnit XML go beside it.",
)
@click.option("--compare", type=_FILE, metavar="OLD.json", help="Tell what changed since then.")
@click.option("--variant", help="Of the PyTorch network, where no bundle tells. [default: b0]")
@network_options
@click.option(
    "--gates",
    type=_FILE,
    metavar="FILE.toml",
    help="A file of gates; an option given here outweighs it.",
)
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True)
@engine_options
@common_options
@click.pass_context
def command(
    context: click.Context,
    candidates: tuple[str, ...],
    reference: str,
    images: Path | None,
    labels: Path | None,
    limit: int | None,
    layers: bool,
    bisect: bool,
    report: Path | None,
    compare: Path | None,
    network: NetworkOf,
    variant: str | None,
    gates: Path | None,
    batch_size: int,
    device: str | None,
    threads: int | None,
    precision: str | None,
) -> None:
    """Compare bundles, ONNX files, OpenVINO IRs (.xml), PyTorch checkpoints or 'torch'.

    The exit code is 1 if a gate fails; the first node at fault is then looked for. A bundle tells
    its own network, and --weights then where the checkpoint is now; where there is no bundle, the
    options from --variant to --std tell it.
    """
    from effnet_edge.parity.report.document import Circumstances, build_document
    from effnet_edge.parity.report.files import read_document
    from effnet_edge.parity.study import study
    from effnet_export.model_files import Openings
    from effnet_export.opening import open_models

    gate = _gate(gates, context.meta.get(_LIMITS, {}))
    old = read_document(compare) if compare else None
    openings = Openings(network(variant or "b0"), device, threads, precision)
    with ExitStack() as stack:
        models = open_models(reference, candidates, openings, stack)
        pictures = _pictures(images, labels, limit, models)
        with progress_bar("comparing") as progress:
            studies = study(
                models.reference,
                models.candidates,
                pictures,
                models.preprocessing,
                batch_size=batch_size,
                output=models.output_kind,
                progress=progress,
            )
        examined = [
            _examine(models, index, each, gate, pictures, batch_size, layers=layers, bisect=bisect)
            for index, each in enumerate(studies)
        ]
        names = [label.name for label in models.labels]
    told_gate = gate.describe(models.output_kind)
    circumstances = Circumstances(_command_line(), told_gate, names)
    document = build_document(examined, circumstances)
    _tell(document, old, report)
    context.exit(1 if document["passed"] is False else 0)


def _gate(file: Path | None, limits: dict[str, float]) -> Gate:
    from effnet_edge.parity.measures.gate_file import gate_of, read_limits

    return gate_of((read_limits(file) if file else {}) | limits)


def _examine(
    models: Models,
    index: int,
    result: Study,
    gate: Gate,
    pictures: Pictures,
    batch_size: int,
    *,
    layers: bool,
    bisect: bool,
) -> Examined:
    from effnet_edge.parity.inside.bisection import find_faults
    from effnet_edge.parity.inside.layers import compare_layers
    from effnet_edge.parity.inside.tracing import LOGITS
    from effnet_edge.parity.report.document import Examined

    verdict = gate.judge(result.result)
    layer_errors = findings = None
    if layers:
        with progress_bar(f"layers of {result.result.candidate}") as progress:
            compared = compare_layers(
                *models.layer_pair(index),
                pictures.subset(LAYER_PICTURES),
                models.preprocessing,
                progress=progress,
            )
        output = OUTPUT_NAMES[models.output_kind]
        layer_errors = [
            replace(each, name=output) if each.name == LOGITS else each for each in compared
        ]
    if bisect or verdict.failures:
        say(f"looking for the node at fault in {result.result.candidate}")
        few = pictures.subset(BISECTED_PICTURES)
        pixels, _ = next(iter(few.batches(models.preprocessing, BISECTED_PICTURES, [])))
        findings = find_faults(*models.layer_pair(index), pixels)
    few = pictures.subset(batch_sizes.PICTURES)
    sizes = batch_sizes.check_batch_sizes(models, index, few, batch_size)
    verdict = verdict.with_faults([failure for each in sizes for failure in each.failures])
    return Examined(result, verdict, layer_errors, findings, sizes)


def _pictures(
    images: Path | None, labels: Path | None, limit: int | None, models: Models
) -> Pictures:
    from effnet_edge.errors import UsageError
    from effnet_edge.pictures.sets import ImageSet

    if images is not None and labels is not None:
        raise UsageError("--images and --labels each name a set of pictures: give one of them")
    if labels is not None and models.output_kind != "single-label":
        raise UsageError(
            f"--labels {labels}: accuracy is measured for one class a picture, and the model is "
            f"{models.output_kind}: give --images"
        )
    channels = models.preprocessing.channels
    if images is not None:
        classes = models.classes if models.output_kind == "single-label" else None
        chosen = ImageSet.from_folder(images, classes, channels)
    elif labels is not None:
        chosen = ImageSet.from_csv(labels, models.classes)
    else:
        from effnet_edge.pictures.embedded import EmbeddedPhotos

        return EmbeddedPhotos(limit or EMBEDDED_PICTURES, channels=channels)
    return chosen if limit is None else chosen.subset(limit)


def _command_line() -> str:
    return shlex.join(["effnet-edge", *sys.argv[1:]])


def _tell(document: Document, old: Document | None, report: Path | None) -> None:
    from effnet_edge.parity.report import changes, write_report

    changed = changes(old, document) if old else []
    written = write_report(document, report, changed) if report else []
    if settings().json:
        print_json(document if old is None else {**document, "changes": changed})
        return
    out = console()
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
    if written:
        say(f"wrote {', '.join(str(path) for path in written)}")


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

    name = each["candidate"]
    lines = [f"{name}: {check['text']}" for check in each["checks"] if check["passed"]]
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
    if measure is None:
        decibels = BY_KEY["sqnr_db"].tell(each["sqnr_db"])
        return f"gives the features of {reference} with an SQNR of {decibels} on {pictures}"
    what = "on all labels of" if document["output"] == "multi-label" else "on"
    return f"agrees with {reference} {what} {measure.tell(each[measure.key])} of {pictures}"


def _table(document: Document) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(
            f"against {document['reference']} ({document['reference_precision']})\n"
            f"{document['images']} pictures: {document['image_source']}"
        ),
        title_justify="left",
    )
    table.add_column("")
    columns = []
    for each in document["candidates"]:
        heading = Text(f"{each['candidate']} ({each['candidate_precision']})")
        table.add_column(heading, justify="right")
        columns.append(_measures(each, document["output"]))
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table


def _measures(each: Document, output: OutputKind) -> dict[str, str]:
    from effnet_edge.nonfinite import tell
    from effnet_edge.parity.measures.table import measures_of

    rows = {measure.title(output): measure.tell_result(each) for measure in measures_of(output)}
    if each["calibration_error"]:
        rows["calibration error"] = tell(100 * each["calibration_error"]["candidate"], ".2f", " %")
    for k, drop in (each["accuracy"] or {}).items():
        rows[k.replace("top", "top-")] = (
            f"{drop['reference_percent']:.2f} → {drop['candidate_percent']:.2f} %"
        )
    if each["statistics"]:
        rows["McNemar p"] = tell(each["statistics"]["mcnemar_p"])
        told = each["statistics"]["told_drop_points"]
        rows[f"pictures needed to see {told} points"] = f"{each['statistics']['images_to_tell_it']}"
    return rows


def _layer_table(candidate: Document) -> Table:
    from rich.table import Table
    from rich.text import Text

    from effnet_edge.nonfinite import tell
    from effnet_edge.parity.report.document import worst_layers

    table = Table(
        title=Text(
            f"{candidate['candidate']}: of {len(candidate['layers'])} tensors, those that add most"
        ),
        title_justify="left",
    )
    for column in ("tensor", "kernel", "SQNR", "added", "inherited", "clipped", "dead"):
        table.add_column(column, justify="left" if column in ("tensor", "kernel") else "right")
    for layer in worst_layers(candidate, SHOWN_LAYERS):
        clipped = [each["clipped"] for each in layer["saturation"]]
        decibels = (layer[key] for key in ("sqnr_db", "added_sqnr_db", "inherited_sqnr_db"))
        table.add_row(
            Text(layer["name"]),
            Text(f"{layer['operation']} {layer['precision']}"),
            *(tell(each, ".1f", " dB") for each in decibels),
            tell(100 * max(clipped), ".2g", " %") if clipped else "",
            f"{layer['dead_channels']} of {layer['channels']}",
        )
    return table
