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
from effnet_edge.outputs import OUTPUT_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from effnet_edge.cli.compared import Models
    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity import Gate
    from effnet_edge.parity.comparison import PictureSet
    from effnet_edge.parity.report.document import Document, Examined
    from effnet_edge.parity.study import Study

EMBEDDED_PICTURES = 64
LAYER_PICTURES = 16
BISECTED_PICTURES = 2
SHOWN_LAYERS = 12

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("parity", short_help="Compare bundles with PyTorch, or any two models.")
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
@click.option("--weights", metavar="FILE", help="The PyTorch checkpoint, if it has moved.")
@click.option("--variant", help="Of the PyTorch network, where no bundle tells. [default: b0]")
@click.option(
    "--gates", type=_FILE, metavar="FILE.toml", help="Gates; the options here count more."
)
@click.option("--max-drop", type=float, metavar="POINTS", help="Gate: top-1 drop, in points.")
@click.option("--min-agreement", type=float, metavar="PCT", help="Gate: top-1 agreement, percent.")
@click.option("--min-sqnr", type=float, metavar="DB", help="Gate: SQNR of the logits, decibels.")
@click.option("--max-kl", type=float, metavar="NATS", help="Gate: mean KL divergence.")
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
    weights: str | None,
    variant: str | None,
    gates: Path | None,
    max_drop: float | None,
    min_agreement: float | None,
    min_sqnr: float | None,
    max_kl: float | None,
    batch_size: int,
    device: str | None,
    threads: int | None,
    precision: str | None,
) -> None:
    """Compare bundles, ONNX files, OpenVINO IRs (.xml), PyTorch checkpoints or 'torch'.

    The exit code is 1 if a gate fails; the first node at fault is then looked for.
    """
    from effnet_edge.cli.compared import Openings, open_models
    from effnet_edge.parity.report.document import Circumstances, build_document
    from effnet_edge.parity.report.files import read_document
    from effnet_edge.parity.study import study

    limits = {
        "max-drop": max_drop,
        "min-agreement": min_agreement,
        "min-sqnr": min_sqnr,
        "max-kl": max_kl,
    }
    gate = _gate(gates, limits)
    old = read_document(compare) if compare else None
    openings = Openings(variant, weights, device, threads, precision)
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
    context.exit(0 if document["passed"] else 1)


def _gate(file: Path | None, limits: Mapping[str, float | None]) -> Gate:
    from effnet_edge.parity.gate_file import gate_of, read_limits

    told = read_limits(file) if file else {}
    return gate_of(told | {key: value for key, value in limits.items() if value is not None})


def _examine(
    models: Models,
    index: int,
    result: Study,
    gate: Gate,
    pictures: PictureSet,
    batch_size: int,
    *,
    layers: bool,
    bisect: bool,
) -> Examined:
    from effnet_edge.parity.bisection import find_faults
    from effnet_edge.parity.layers import compare_layers
    from effnet_edge.parity.report.document import Examined
    from effnet_edge.parity.tracing import LOGITS

    failures = gate.check(result.result)
    layer_errors = findings = None
    if layers:
        with progress_bar(f"layers of {result.result.candidate}") as progress:
            compared = compare_layers(
                *models.layer_pair(index),
                _few(pictures, LAYER_PICTURES),
                models.preprocessing,
                progress=progress,
            )
        output = OUTPUT_NAMES[models.output_kind]
        layer_errors = [
            replace(each, name=output) if each.name == LOGITS else each for each in compared
        ]
    if bisect or failures:
        say(f"looking for the node at fault in {result.result.candidate}")
        few = _few(pictures, BISECTED_PICTURES)
        pixels, _ = next(iter(few.batches(models.preprocessing, BISECTED_PICTURES, [])))
        findings = find_faults(*models.layer_pair(index), pixels)
    few = _few(pictures, batch_sizes.PICTURES)
    sizes = batch_sizes.check_batch_sizes(models, index, few, batch_size)
    failures += [failure for each in sizes for failure in each.failures]
    return Examined(result, failures, layer_errors, findings, sizes)


def _few(pictures: PictureSet, count: int) -> PictureSet:
    from effnet_edge.image_set import ImageSet

    if isinstance(pictures, ImageSet):
        return pictures.subset(count)
    from effnet_calibration.embedded import EmbeddedPhotos

    if isinstance(pictures, EmbeddedPhotos):
        return replace(pictures, count=min(count, len(pictures)))
    return pictures


def _pictures(
    images: Path | None, labels: Path | None, limit: int | None, models: Models
) -> PictureSet:
    from effnet_edge.errors import UsageError
    from effnet_edge.image_set import ImageSet

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
        from effnet_calibration.embedded import EmbeddedPhotos

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
        click.echo(f"skipped: {line}", err=True)
    for line in changed:
        out.print(f"changed: {line}", markup=False)
    for each in document["candidates"]:
        for failure in each["failures"]:
            out.print(f"FAILED: {each['candidate']}: {failure}", markup=False)
    if document["passed"]:
        out.print(_verdict(document), markup=False)
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


def _verdict(document: Document) -> str:
    lines: list[str | None] = []
    for each in document["candidates"]:
        lines.append(
            f"{each['candidate']} ({each['candidate_precision']}) {_agreement(document, each)}"
        )
        lines.append(batch_sizes.told_batch_sizes(each))
    return "\n".join(line for line in lines if line is not None)


def _agreement(document: Document, each: Document) -> str:
    reference, pictures = document["reference"], f"{document['images']} pictures"
    if document["output"] == "features":
        return (
            f"gives the features of {reference} with an SQNR of "
            f"{_number(each['sqnr_db'], '.1f')} dB on {pictures}"
        )
    multi_label = document["output"] == "multi-label"
    share = each["label_set_agreement" if multi_label else "top1_agreement"]
    what = "on all labels of" if multi_label else "on"
    return f"agrees with {reference} {what} {100 * share:.2f} % of {pictures}"


def _table(document: Document) -> Table:
    from rich.table import Table

    table = Table(
        title=(
            f"against {document['reference']} ({document['reference_precision']})\n"
            f"{document['images']} pictures: {document['image_source']}"
        ),
        title_justify="left",
    )
    table.add_column("")
    columns = []
    for each in document["candidates"]:
        table.add_column(f"{each['candidate']} ({each['candidate_precision']})", justify="right")
        columns.append(_measures(each, document["output"]))
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table


def _measures(each: Document, output: OutputKind) -> dict[str, str]:
    from effnet_edge.parity.output_measures import SHOWN_MEASURES

    rows = {shown.title: shown.tell(each[shown.key]) for shown in SHOWN_MEASURES[output]}
    value = "feature" if output == "features" else "logit"
    rows |= {
        "SQNR": f"{_number(each['sqnr_db'], '.1f')} dB",
        "cosine": _number(each["cosine"], ".6f"),
        f"max |Δ{value}|": _number(each["max_abs_error"], ".3g"),
        "… of the range": _number(each["relative_error"], ".1e"),
        f"mean |Δ{value}|": _number(each["mean_abs_error"], ".3g"),
    }
    if each["calibration_error"]:
        rows["calibration error"] = f"{100 * each['calibration_error']['candidate']:.2f} %"
    for k, drop in (each["accuracy"] or {}).items():
        name = k.replace("top", "top-")
        low, high = drop["drop_interval_95_points"]
        rows[name] = f"{drop['reference_percent']:.2f} → {drop['candidate_percent']:.2f} %"
        rows[f"{name} drop"] = f"{drop['drop_points']:.2f} points"
        rows[f"{name} 95 % interval"] = f"{low:.2f} to {high:.2f}"
    if each["statistics"]:
        rows["McNemar p"] = f"{each['statistics']['mcnemar_p']:.3g}"
        told = each["statistics"]["told_drop_points"]
        rows[f"pictures to tell {told} points"] = f"{each['statistics']['images_to_tell_it']}"
    return rows


def _layer_table(candidate: Document) -> Table:
    from rich.table import Table

    layers = candidate["layers"]
    finite = [layer for layer in layers if isinstance(layer["added_sqnr_db"], float)]
    table = Table(
        title=f"{candidate['candidate']}: of {len(layers)} tensors, those that add most",
        title_justify="left",
    )
    for column in ("tensor", "kernel", "SQNR", "added", "inherited", "clipped", "dead"):
        table.add_column(column, justify="left" if column in ("tensor", "kernel") else "right")
    for layer in sorted(finite, key=lambda each: each["added_sqnr_db"])[:SHOWN_LAYERS]:
        clipped = [each["clipped"] for each in layer["saturation"]]
        table.add_row(
            layer["name"],
            f"{layer['operation']} {layer['precision']}",
            *(
                f"{_number(layer[key], '.1f')} dB"
                for key in ("sqnr_db", "added_sqnr_db", "inherited_sqnr_db")
            ),
            f"{100 * max(clipped):.2g} %" if clipped else "",
            f"{layer['dead_channels']} of {layer['channels']}",
        )
    return table


def _number(value: object, style: str) -> str:
    """A measure, where null stands for what JSON cannot hold."""
    return (
        format(value, style)
        if isinstance(value, (int, float))
        else "∞"
        if value is None
        else str(value)
    )
