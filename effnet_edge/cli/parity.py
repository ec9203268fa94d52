"""`effnet-edge parity`: is it still the same model?"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from effnet_edge.cli.common import common_options, console, print_json, progress_bar, settings
from effnet_edge.cli.engine import engine_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from effnet_edge.parity import Drop, ParityResult
    from effnet_edge.parity.comparison import PictureSet

EMBEDDED_PICTURES = 64


@click.command("parity", short_help="Compare a bundle with PyTorch, or any two models.")
@click.argument("candidate", metavar="BUNDLE|MODEL.onnx")
@click.option(
    "--reference",
    default="torch",
    show_default=True,
    metavar="torch|BUNDLE|MODEL.onnx",
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
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CSV",
    help="Labelled pictures: columns path and class_index, wnid or label.",
)
@click.option("--limit", type=click.IntRange(1), help="So many pictures of the set, at random.")
@click.option("--weights", metavar="FILE", help="The PyTorch checkpoint, if it has moved.")
@click.option("--variant", help="Of the PyTorch network, where no bundle tells. [default: b0]")
@click.option("--max-drop", type=float, metavar="POINTS", help="Gate: top-1 drop, in points.")
@click.option("--min-agreement", type=float, metavar="PCT", help="Gate: top-1 agreement, percent.")
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True)
@engine_options
@common_options
@click.pass_context
def command(
    context: click.Context,
    candidate: str,
    reference: str,
    images: Path | None,
    labels: Path | None,
    limit: int | None,
    weights: str | None,
    variant: str | None,
    max_drop: float | None,
    min_agreement: float | None,
    batch_size: int,
    device: str | None,
    threads: int | None,
    precision: str | None,
) -> None:
    """Compare a bundle or an ONNX model with its PyTorch network, or with any other.

    The exit code is 1 if a gate fails.
    """
    from effnet_edge.cli.compared import Openings, open_models
    from effnet_edge.parity import Gate, compare

    gate = Gate(
        min_agreement=None if min_agreement is None else min_agreement / 100, max_drop=max_drop
    )
    openings = Openings(variant, weights, device, threads, precision)
    with ExitStack() as stack:
        compared = open_models(reference, candidate, openings, stack)
        pictures = _pictures(images, labels, limit, compared.classes)
        progress = stack.enter_context(progress_bar("comparing"))
        result = compare(
            compared.reference,
            compared.candidate,
            pictures,
            compared.preprocessing,
            batch_size=batch_size,
            progress=progress,
        )
    failures = gate.check(result)
    _report(result, failures)
    context.exit(1 if failures else 0)


def _pictures(
    images: Path | None, labels: Path | None, limit: int | None, classes: Mapping[str, int]
) -> PictureSet:
    from effnet_edge.errors import UsageError
    from effnet_edge.image_set import ImageSet

    if images is not None and labels is not None:
        raise UsageError("--images and --labels each name a set of pictures: give one of them")
    if images is not None:
        chosen = ImageSet.from_folder(images, classes)
    elif labels is not None:
        chosen = ImageSet.from_csv(labels, classes)
    else:
        from effnet_calibration.embedded import EmbeddedPhotos

        return EmbeddedPhotos(limit or EMBEDDED_PICTURES)
    return chosen if limit is None else chosen.subset(limit)


def _report(result: ParityResult, failures: list[str]) -> None:
    if settings().json:
        print_json({**result.to_dict(), "failures": failures, "passed": not failures})
        return
    out = console()
    out.print(_table(result))
    for line in result.skipped:
        click.echo(f"skipped: {line}", err=True)
    for failure in failures:
        out.print(f"FAILED: {failure}", markup=False)
    if not failures:
        out.print(_verdict(result), markup=False)


def _verdict(result: ParityResult) -> str:
    return (
        f"{result.candidate} ({result.candidate_precision}) agrees with {result.reference} "
        f"on {100 * result.top1_agreement:.2f} % of {result.images} pictures"
    )


def _table(result: ParityResult) -> Table:
    from rich.table import Table

    table = Table(
        title=(
            f"{result.candidate} ({result.candidate_precision}) against "
            f"{result.reference} ({result.reference_precision})\n"
            f"{result.images} pictures: {result.image_source}"
        ),
        title_justify="left",
        show_header=False,
    )
    rows = {
        "top-1 agreement": f"{100 * result.top1_agreement:.2f} %",
        "top-5 agreement": f"{100 * result.top5_agreement:.2f} %",
        "KL divergence": f"{result.kl:.3g} nats",
        "SQNR": f"{result.sqnr_db:.1f} dB",
        "cosine": f"{result.cosine:.6f}",
        "max |Δlogit|": f"{result.max_abs_error:.3g} ({result.relative_error:.1e} of the range)",
        "mean |Δlogit|": f"{result.mean_abs_error:.3g}",
    }
    if result.accuracy:
        rows["top-1"] = _drop(result.accuracy.top1)
        rows["top-5"] = _drop(result.accuracy.top5)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _drop(drop: Drop) -> str:
    low, high = drop.interval
    return (
        f"{drop.reference:.2f} % → {drop.candidate:.2f} %, drop {drop.points:.2f} points "
        f"(95 % interval {low:.2f} to {high:.2f}, paired)"
    )
