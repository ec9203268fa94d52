"""`effnet-edge bench`: latency and throughput of bundles and served models."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from effnet_edge.cli.common import (
    common_options,
    console,
    print_json,
    progress_bar,
    say,
    settings,
)
from effnet_edge.cli.served_options import served_options
from effnet_edge.cli.signatures import trusted_option

if TYPE_CHECKING:
    from pathlib import Path

    from effnet_edge.serving.http_protocol import TensorForm

MOST_CONCURRENCY = 256
MOST_SECONDS = 3600


@click.command("bench", short_help="Time bundles and served models against each other.")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--batch", type=click.IntRange(1), default=1, show_default=True, help="Images a call."
)
@click.option("--runs", type=click.IntRange(1), default=100, show_default=True, help="Timed calls.")
@click.option(
    "--threads", type=click.IntRange(1), help="CPU threads. [default: the engine's choice]"
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, MOST_CONCURRENCY),
    default=1,
    show_default=True,
    help="Calls that wait for their answer at once.",
)
@click.option(
    "--seconds",
    type=click.IntRange(1, MOST_SECONDS),
    help="The most that all calls of a model take; fewer are timed then. [default: 60 where one is "
    "served]",
)
@served_options
@trusted_option
@common_options
def command(
    models: tuple[str, ...],
    batch: int,
    runs: int,
    threads: int | None,
    concurrency: int,
    seconds: int | None,
    timeout: int | None,
    form: TensorForm | None,
    trusted: Path | None,
) -> None:
    """Time each MODEL, taking turns in one run; ratios are to the first.

    A model is a bundle, or one behind a server: http://HOST:PORT/MODEL or grpc://HOST:PORT/MODEL.
    """
    from effnet_edge.bench import bench_models
    from effnet_edge.serving.asking import Asking

    say("opening the models")
    with progress_bar("timing in turns") as progress:
        timings = bench_models(
            models,
            batch=batch,
            runs=runs,
            threads=threads,
            progress=progress,
            trusted=trusted,
            concurrency=concurrency,
            seconds=seconds,
            asking=Asking(timeout, form),
        )
    if settings().json:
        print_json([asdict(timing) for timing in timings])
        return
    from rich.table import Table

    table = Table()
    table.add_column("model")
    table.add_column("ran in", no_wrap=True)
    for heading in ("calls", "median ms", "p90", "p99", "images/s", "ratio"):
        table.add_column(heading, justify="right")
    for row in timings:
        table.add_row(
            row.path,
            f"{row.execution_precision}, {row.device}",
            str(row.timing.runs),
            *(f"{1e3 * time:.2f}" for time in (row.timing.median, row.timing.p90, row.timing.p99)),
            f"{row.images_per_second:.0f}",
            f"{row.timing.ratio:.2f}",
        )
    console().print(table)
