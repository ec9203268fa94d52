"""`effnet-edge bench`: latency and throughput of bundles and served models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from effnet_edge import nonfinite
from effnet_edge.cli.common import (
    common_options,
    console,
    print_json,
    progress_bar,
    say,
    settings,
)
from effnet_edge.cli.destinations import outside_bundles
from effnet_edge.cli.engine import engine_options
from effnet_edge.cli.numbers import Count
from effnet_edge.cli.parity_pictures import check_there
from effnet_edge.cli.served_options import served_options
from effnet_edge.cli.signatures import trusted_option
from effnet_edge.errors import UsageError
from effnet_edge.machine import most_threads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from effnet_edge.bench import ModelTiming, Original, Timing
    from effnet_edge.serving.http_protocol import TensorForm

_TORCH = "torch"
MOST_SECONDS = 3600


@click.command("bench", short_help="Time bundles and served models against each other.")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=click.Path())
@click.option("--batch", type=Count(1), default=1, show_default=True, help="Images a call.")
@click.option("--runs", type=Count(1), default=100, show_default=True, help="Timed calls.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, most_threads()),
    help="Calls that wait for their answer at once. [default: 1; with --throughput as many as the "
    "engines work on best]",
)
@click.option(
    "--throughput",
    is_flag=True,
    help="Load the engines for many calls at once, rather than for one soon.",
)
@click.option(
    "--streams",
    type=click.IntRange(1, most_threads()),
    help="Load the engines for so many calls at once. [default: with --throughput what suits each]",
)
@click.option(
    "--layers",
    is_flag=True,
    help="Time the layers of bundles, too, as far as their engine tells.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    callback=check_there,
    metavar="DIR|FILE|PATTERN",
    help="Time the whole way from these pictures' files to their labels, too.",
)
@click.option(
    "--seconds",
    type=click.IntRange(1, MOST_SECONDS),
    help="The most that all calls of a model take; fewer are timed then. [default: 60 where one is "
    "served]",
)
@click.option(
    "--weights",
    metavar="FILE",
    help="Of torch: its checkpoint, if that is not where the bundle says.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=outside_bundles,
    metavar="FILE.html",
    help="Write a page with how the times of the calls are spread.",
)
@engine_options
@served_options
@trusted_option
@common_options
def command(
    models: tuple[str, ...],
    batch: int,
    runs: int,
    concurrency: int | None,
    throughput: bool,
    streams: int | None,
    layers: bool,
    images: Path | None,
    seconds: int | None,
    weights: str | None,
    report: Path | None,
    device: str | None,
    threads: int | None,
    precision: str | None,
    timeout: int | None,
    form: TensorForm | None,
    trusted: Path | None,
) -> None:
    """Time each MODEL, taking turns in one run; ratios are to the first.

    A model is a bundle, or one behind a server: http://HOST:PORT/MODEL or grpc://HOST:PORT/MODEL.
    'torch' is the PyTorch network that the first bundle was made from, where PyTorch is installed.
    """
    from effnet_edge.bench import bench_models
    from effnet_edge.bench.other_work import told_other_work
    from effnet_edge.serving.asking import Asking

    if report is not None:
        from effnet_edge.cli.bench_page import check_page

        check_page(report)
    say("opening the models")
    with progress_bar("timing in turns") as progress:
        timings = bench_models(
            models,
            batch=batch,
            runs=runs,
            threads=threads,
            progress=progress,
            trusted=trusted,
            device=device,
            precision=precision,
            throughput=throughput,
            streams=streams,
            layers=layers,
            files=None if images is None else _files(images),
            concurrency=concurrency,
            seconds=seconds,
            asking=Asking(timeout, form),
            originals=_originals(models, weights, threads),
            tell=say,
        )
    if settings().json:
        print_json([asdict(timing) for timing in timings])
    else:
        console().print(_table(timings))
        for each in timings:
            if each.layers:
                console().print(_layer_table(each))
        warning = told_other_work(timings[0].other_work)
        if warning:
            say(f"warning: {warning}")
    if report is not None:
        from effnet_edge.cli.bench_page import write_page

        write_page(timings, report)
        say(f"wrote {report}")


def _originals(
    models: Sequence[str], weights: str | None, threads: int | None
) -> Mapping[str, Original]:
    """The PyTorch network, if it is named."""
    if _TORCH not in models:
        if weights is not None:
            raise UsageError(f"--weights {weights} goes with '{_TORCH}' among the models")
        return {}
    from effnet_edge.serving.address import is_address

    bundles = [each for each in models if each != _TORCH and not is_address(each)]
    if not bundles:
        raise UsageError(f"{_TORCH}: name a bundle, too, which tells what it was made from")
    from effnet_export.original import open_original

    return {_TORCH: open_original(_TORCH, Path(bundles[0]), weights, threads)}


def _files(images: Path) -> Sequence[Path]:
    """The pictures that --images names."""
    from effnet_edge.pictures.sources import holds_several, picture_paths

    return picture_paths(images) if holds_several(images) else [images]


def _table(timings: Sequence[ModelTiming]) -> Table:
    """A row for each model, and one more for its way from files where that was timed."""
    from rich.table import Table

    table = Table()
    table.add_column("model")
    table.add_column("ran in", no_wrap=True)
    headings = ("calls", "median ms", "half of them", "p90", "p99", "images/s", "ratio")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in timings:
        ran_in = f"{row.execution_precision}, {row.device}"
        table.add_row(row.path, ran_in, *_cells(row.timing, row.batch))
    for row in timings:
        if row.from_files is not None:
            cells = _cells(row.from_files, row.batch)
            table.add_row(f"{row.path}: file to label", "", *cells)
    return table


def _layer_table(model: ModelTiming) -> Table:
    """A row for each part of the network and kernel."""
    from rich.table import Table

    from effnet_edge.bench.parts import by_part

    table = Table(title=f"{model.path}: its layers", title_justify="left")
    for heading in ("part", "operator", "kernel"):
        table.add_column(heading)
    for heading in ("layers", "ms", "%"):
        table.add_column(heading, justify="right")
    parts = by_part(model.layers)
    for part in parts:
        table.add_row(
            part.part,
            part.operator,
            part.kernel,
            str(part.layers),
            f"{1e3 * part.seconds:.3f}",
            f"{100 * part.share:.1f}",
        )
    count, seconds = sum(part.layers for part in parts), sum(part.seconds for part in parts)
    table.add_section()
    table.add_row("all", "", "", str(count), f"{1e3 * seconds:.3f}", "100.0")
    return table


def _cells(timing: Timing, batch: int) -> list[str]:
    low, high = timing.middle_half
    return [
        str(timing.runs),
        f"{1e3 * timing.median:.2f}",
        f"{1e3 * low:.2f} to {1e3 * high:.2f}",
        f"{1e3 * timing.p90:.2f}",
        f"{1e3 * timing.p99:.2f}",
        nonfinite.tell(batch * timing.throughput),
        f"{timing.ratio:.2f}",
    ]
