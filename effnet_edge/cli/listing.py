"""`effnet-edge list`: the variants."""

from __future__ import annotations

from dataclasses import asdict

import click

from effnet_edge.cli.common import common_options, console, print_json, settings
from effnet_edge.model.variants import VARIANTS, Variant


@click.command("list", short_help="List the variants.")
@common_options
def command() -> None:
    """List the variants: resolution, parameters, multiply-adds, accuracy, weights."""
    if settings().json:
        print_json([_row(variant) for variant in VARIANTS.values()])
        return
    from rich.table import Table

    from effnet_edge.model.remote.registry import weight_names

    table = Table()
    table.add_column("variant")
    for heading in ("resolution", "parameters", "multiply-adds", "top-1"):
        table.add_column(heading, justify="right")
    table.add_column("published in")
    table.add_column("named weights")
    for variant in VARIANTS.values():
        table.add_row(
            variant.name,
            f"{variant.resolution} px",
            f"{variant.parameter_count() / 1e6:.2f} M",
            f"{variant.multiply_adds() / 1e9:.2f} G",
            f"{variant.published.top1:.1f} %",
            variant.published.source,
            ", ".join(weight_names(variant.name)),
        )
    console().print(table)


def _row(variant: Variant) -> dict[str, object]:
    from effnet_edge.model.remote.registry import weight_names

    return {
        **asdict(variant),
        "family": variant.family.name,
        "parameters": variant.parameter_count(),
        "multiply_adds": variant.multiply_adds(),
        "named_weights": weight_names(variant.name),
    }
