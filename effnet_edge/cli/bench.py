"""`effnet-edge bench`: latency and throughput of bundles against each other."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from effnet_edge.cli.common import common_options, console, print_json, progress_bar, settings
from effnet_edge.cli.signatures import trusted_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command("bench", short_help="Time bundles against each other.")
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--batch", type=click.IntRange(1), default=1, show_default=True, help="Images a call."
)
@click.option("--runs", type=click.IntRange(1), default=100, show_default=True, help="Timed calls.")
@click.option(
    "--threads", type=click.IntRange(1), help="CPU threads. [default: the engine's choice]"
)
@trusted_option
@common_options
def command(
    bundles: tuple[str, ...], batch: int, runs: int, threads: int | None, trusted: Path | None
) -> None:
    """Time each BUNDLE, taking turns in one run; ratios are to the first."""
    from effnet_edge.bench import bench_bundles

    with progress_bar("timing in turns") as progress:
        timings = bench_bundles(
            bundles, batch=batch, runs=runs, threads=threads, progress=progress, trusted=trusted
        )
    if settings().json:
        print_json([asdict(timing) for timing in timings])
        return
    from rich.table import Table

    table = Table()
    table.add_column("bundle", overflow="fold")
    table.add_column("ran in", no_wrap=True)
    for heading in ("median ms", "p90", "p99", "images/s", "ratio"):
        table.add_column(heading, justify="right")
    for row in timings:
        table.add_row(
            row.path,
            f"{row.execution_precision}, {row.device}",
            *(f"{1e3 * time:.2f}" for time in (row.timing.median, row.timing.p90, row.timing.p99)),
            f"{row.images_per_second:.0f}",
            f"{row.timing.ratio:.2f}",
        )
    console().print(table)
