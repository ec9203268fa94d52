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
from effnet_edge.cli.checked import CheckedCommand
from effnet_edge.cli.common import (
    common_options,
    print_document,
    progress_bar,
    say,
    settings,
)
from effnet_edge.cli.destinations import check_report, outside_bundles
from effnet_edge.cli.engine import engine_options
from effnet_edge.cli.lines_options import lines_options
from effnet_edge.cli.model_file_options import SaidValues, model_file_options
from effnet_edge.cli.network_options import NetworkOf, network_options
from effnet_edge.cli.numbers import Count
from effnet_edge.cli.parity_costs import costs
from effnet_edge.cli.parity_lines import kept_candidates, kept_when_interrupted, lines_of
from effnet_edge.cli.parity_pictures import check_there, comparison_pictures
from effnet_edge.cli.served_options import served_options
from effnet_edge.cli.variant_names import VariantName
from effnet_edge.outputs import OUTPUT_NAMES

if TYPE_CHECKING:
    from effnet_edge.parity import Gate
    from effnet_edge.parity.measures.table import Limit
    from effnet_edge.parity.report.document import Document, Examined
    from effnet_edge.parity.study import Study
    from effnet_edge.pictures.few import FewPictures
    from effnet_edge.serving.http_protocol import TensorForm
    from effnet_export.opening import Models

FEW_PICTURES = 16
BISECTED_PICTURES = 2

# Under this key the context holds the limits that were given, by option.
_LIMITS = f"{__name__}.limits"

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class _GatedCommand(CheckedCommand):
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
    help="What to compare with; 'torch' is the network that the bundle was made from, FILE.answers "
    "what --answers kept of a model.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    callback=check_there,
    metavar="DIR|SHARDS.tar",
    help="Pictures in a folder, or in tar archives ('in/*.tar' in quotes); labelled if their "
    "folders are named by class. [default: embedded photos]",
)
@click.option(
    "--labels",
    type=_FILE,
    metavar="CSV|FILE",
    help="Labelled pictures in a CSV file: columns path and class_index, wnid or label; of a "
    "regression path and value, or the names of its values. With --images: a file with a line for "
    "each picture, such as ImageNet's ground truth.",
)
@click.option(
    "--answers",
    type=click.Path(file_okay=False, path_type=Path),
    callback=outside_bundles,
    metavar="DIR",
    help="Keep the reference's answers there, and run it only for pictures without one; for "
    "--resume also what the candidates answered so far.",
)
@lines_options
@click.option("--limit", type=Count(1), help="So many pictures of the set, at random.")
@click.option("--layers", is_flag=True, help="Compare every layer: what it adds, what it inherits.")
@click.option(
    "--speed",
    is_flag=True,
    help="Time all models in turns, one picture a call: how many times as fast as each other.",
)
@click.option("--bisect", is_flag=True, help="Name the nodes at fault, even if all gates pass.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Write a report; FILE.parity.json and FILE.junit.xml go beside it.",
)
@click.option("--compare", type=_FILE, metavar="OLD.json", help="Tell what changed since then.")
@click.option(
    "--variant",
    type=VariantName(),
    help="Of the PyTorch network, where no bundle or model tells. [default: b0]",
)
@network_options
@model_file_options
@click.option(
    "--gates",
    type=_FILE,
    metavar="FILE.toml",
    help="A file of gates; an option given here outweighs it.",
)
@click.option("--batch-size", type=Count(1), default=8, show_default=True)
@engine_options
@served_options
@common_options
@click.pass_context
def command(
    context: click.Context,
    candidates: tuple[str, ...],
    reference: str,
    images: Path | None,
    labels: Path | None,
    answers: Path | None,
    jsonl: Path | None,
    resume: bool,
    limit: int | None,
    layers: bool,
    speed: bool,
    bisect: bool,
    report: Path | None,
    compare: Path | None,
    network: NetworkOf,
    said: SaidValues,
    variant: str | None,
    gates: Path | None,
    batch_size: int,
    device: str | None,
    threads: int | None,
    precision: str | None,
    timeout: int | None,
    form: TensorForm | None,
) -> None:
    """Compare bundles, ONNX, OpenVINO (.xml) and LiteRT files, checkpoints, variants or 'torch'.

    http://HOST:PORT/MODEL and grpc://HOST:PORT/MODEL are models behind servers of KServe v2.
    The exit code is 1 if a gate fails; the first node at fault is then looked for. A bundle tells
    its own network, and --weights then where the checkpoint is now; where there is no bundle, the
    checkpoint and the options from --variant to --std tell it. What a model file does not tell,
    --layout, --pixels, --output and --ending do.
    """
    from effnet_edge.errors import UsageError
    from effnet_edge.parity.report.files import read_document
    from effnet_export.specs import DEFAULT_VARIANT, named_variant

    if report is not None:
        check_report(report)
    if resume and answers is None:
        raise UsageError(
            "--resume goes with --answers DIR: what a killed run was answered is kept there"
        )
    gate = _gate(gates, context.meta.get(_LIMITS, {}))
    old = read_document(compare) if compare else None
    request = network(named_variant((reference, *candidates), variant) or DEFAULT_VARIANT)

    say("opening the models")  # PyTorch's import takes seconds, too
    from effnet_edge.parity.report.document import Circumstances, build_document
    from effnet_edge.parity.study import study
    from effnet_edge.pictures.few import readable
    from effnet_edge.serving.asking import Asking
    from effnet_export.model_files import Openings
    from effnet_export.opening import open_models
    from effnet_export.said import Said

    openings = Openings(request, device, threads, precision, Said(*said), Asking(timeout, form))
    with ExitStack() as stack, kept_when_interrupted(answers, jsonl):
        models = open_models(reference, candidates, openings, stack, answers)
        pictures = comparison_pictures(images, labels, limit, models)
        with (
            kept_candidates(answers, models, candidates, resume=resume) as running,
            lines_of(jsonl, models, (reference, candidates), labels, resume=resume) as on_batch,
            progress_bar("comparing") as progress,
        ):
            studies = study(
                models.reference,
                running,
                pictures,
                models.preprocessing,
                batch_size=batch_size,
                output=models.output_kind,
                as_probabilities=models.as_probabilities,
                progress=progress,
                on_batch=on_batch,
            )
        few = readable(pictures, FEW_PICTURES, models.preprocessing)
        examined = [
            _examine(models, index, each, gate, few, batch_size, layers=layers, bisect=bisect)
            for index, each in enumerate(studies)
        ]
        names = [label.name for label in models.labels]
        baseline, each_cost = costs(models, reference, candidates, few, timed=speed)
    examined = [replace(each, cost=cost) for each, cost in zip(examined, each_cost, strict=True)]
    told_gate = gate.describe(models.output_kind)
    files = [each.to_dict() for each in models.files]
    circumstances = Circumstances(_command_line(), told_gate, names, baseline, files)
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
    few: FewPictures,
    batch_size: int,
    *,
    layers: bool,
    bisect: bool,
) -> Examined:
    import numpy as np

    from effnet_edge.errors import EffnetEdgeError
    from effnet_edge.parity.inside.bisection import find_faults
    from effnet_edge.parity.inside.layers import compare_layers
    from effnet_edge.parity.inside.tracing import LOGITS
    from effnet_edge.parity.measures.gates import unfit_labels
    from effnet_edge.parity.report.document import Examined

    verdict = gate.judge(result.result)
    verdict = verdict.with_faults(unfit_labels(gate, result.result))
    layer_errors = findings = None
    shows_tensors = models.shows_tensors(index)
    if layers and shows_tensors and len(few):
        with progress_bar(f"layers of {result.result.candidate}") as progress:
            compared = compare_layers(
                *models.layer_pair(index),
                few,
                models.preprocessing,
                progress=progress,
            )
        output = OUTPUT_NAMES[models.output_kind]
        layer_errors = [
            replace(each, name=output) if each.name == LOGITS else each for each in compared
        ]
    if verdict.failures and not shows_tensors:
        served_from = models.served_bundle_of(index)
        bundle = served_from.path if served_from else "the bundle"
        say(
            f"{result.result.candidate}: a server gives answers only: whether it is at fault or "
            f"what it serves, a comparison with {bundle} tells"
        )
    elif (bisect or verdict.failures) and shows_tensors and len(few):
        say(f"looking for the node at fault in {result.result.candidate}")
        try:
            # The fault that makes a NaN shows in the pictures that have one.
            pixels = np.stack([*result.not_finite, *few.pixels])[:BISECTED_PICTURES]
            findings = find_faults(*models.layer_pair(index), pixels)
        except (EffnetEdgeError, ImportError) as error:
            # The gates have judged all the same, and what they found is told.
            if not verdict.failures:
                raise
            say(f"the node at fault is not looked for: {error}")
    largest = min(batch_size, result.result.images)  # of the batches that were compared
    sizes, at_once = batch_sizes.check_batch_sizes(models, index, few, largest, gate)
    faults = [failure for each in sizes for failure in each.failures]
    verdict = verdict.with_faults([*faults, *(at_once.failures if at_once else ())])
    made_from = models.bundle_of(index) or models.served_bundle_of(index)
    calibration = made_from.manifest.calibration if made_from else None
    return Examined(
        result, verdict, layer_errors, findings, sizes, at_once=at_once, calibration=calibration
    )


def _command_line() -> str:
    return shlex.join(["effnet-edge", *sys.argv[1:]])


def _tell(document: Document, old: Document | None, report: Path | None) -> None:
    """First print, then write: what was found is seen even where it cannot be written."""
    from effnet_edge.cli.parity_output import tell
    from effnet_edge.parity.report import changes, write_report

    changed = changes(old, document) if old else []
    if settings().json:
        print_document(document if old is None else {**document, "changes": changed})
    else:
        tell(document, changed)
    if report is not None:
        written = write_report(document, report, changed)
        say(f"wrote {', '.join(str(path) for path in written)}")
