"""`effnet-edge sensitivity`: which tensor's quantization costs how much?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from effnet_edge.cli.checked import CheckedCommand
from effnet_edge.cli.common import (
    common_options,
    console,
    print_document,
    say,
    settings,
    stage_display,
)
from effnet_edge.cli.destinations import check_plot
from effnet_edge.cli.network_options import (
    NetworkOf,
    calibration_options,
    network_options,
    target_option,
)
from effnet_edge.cli.numbers import Count
from effnet_edge.cli.variant_names import VariantOrBundle
from effnet_edge.text import plain

if TYPE_CHECKING:
    from types import ModuleType

    from rich.table import Table

    from effnet_export.sensitivity import SensitivityResult


@click.command("sensitivity", cls=CheckedCommand, short_help="Say what each tensor's INT8 costs.")
@click.argument("model", type=VariantOrBundle())
@click.option(
    "--images",
    type=click.Path(exists=True, path_type=Path),
    metavar="DIR|TAR|CSV",
    help="Pictures to measure on. [default: those of --calibration, or embedded photos]",
)
@click.option(
    "--limit",
    type=Count(1),
    default=32,
    show_default=True,
    help="Measure on so many pictures.",
)
@click.option(
    "--top",
    type=Count(1),
    default=15,
    show_default=True,
    help="Show so many of the costliest; --json has all.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also draw them and how the costs add up, as .png, .svg or .pdf.",
)
@calibration_options
@target_option
@network_options
@common_options
def command(
    model: str,
    images: Path | None,
    limit: int,
    top: int,
    plot: Path | None,
    calibration: Path | None,
    calibration_size: int,
    target: str,
    network: NetworkOf,
) -> None:
    """Measure what quantizing each layer alone costs, the highest cost first.

    The cost is the KL divergence of the answers from those of the FP32 network (of features, the
    error's share of their energy, of values of their variance). Of an INT8 bundle, its own
    calibration is measured; a variant (see effnet-edge list) is calibrated first, and only then do
    the options from --calibration to --std matter.
    """
    if plot is not None:
        check_plot(plot)
    asked = network(model)
    with stage_display() as display:
        display.stage("measuring the cost of each tensor")  # PyTorch's import takes seconds, too
        module = _module()
        request = module.SensitivityRequest(
            model=model,
            network=asked,
            images=images,
            limit=limit,
            calibration=calibration,
            calibration_size=calibration_size,
            target=target,
        )
        result = module.measure_sensitivity(request, display.progress)
    _report(result, plot, top)
    if plot is not None:
        from effnet_calibration.sensitivity_plot import plot_sensitivity

        plot_sensitivity(result.costs, plot, _title(result), result.measure, top)
        say(f"drawn in {plot}")


def _module() -> ModuleType:
    from effnet_edge.extras import needed_for

    with needed_for("sensitivity", "export"):
        from effnet_export import sensitivity
    return sensitivity


def _title(result: SensitivityResult) -> str:
    return (
        f"EfficientNet-{result.variant.upper()}, {result.scheme}: "
        f"what quantizing each tensor alone costs ({result.images} pictures)"
    )


def _report(result: SensitivityResult, plot: Path | None, top: int) -> None:
    if settings().json:
        print_document({**asdict(result), "plot": None if plot is None else str(plot)})
        return
    console().print(_table(result, top))
    others = result.costs[top:]
    if others:
        total = sum(cost.divergence for cost in result.costs)
        rest = sum(cost.divergence for cost in others)
        click.echo(
            f"{len(others)} others make up {100 * rest / total if total else 0:.1f} %: "
            f"--top {len(result.costs)} shows all"
        )
    if result.kept:
        click.echo(f"In 16 bit, and so without a cost: {plain(', '.join(result.kept))}")
    say(f"measured in {result.seconds:.0f} s on {result.image_source}")


def _table(result: SensitivityResult, top: int) -> Table:
    from rich.table import Table

    table = Table(title=_title(result), title_justify="left")
    table.add_column("input of", no_wrap=True)
    table.add_column("kind")
    for heading in (result.measure, "share", "so far", "SNR"):
        table.add_column(heading, justify="right")
    table.add_column("range rule")
    total = sum(cost.divergence for cost in result.costs)
    so_far = 0.0
    for cost in result.costs[:top]:
        so_far += cost.divergence
        table.add_row(
            cost.name,
            cost.kind,
            f"{cost.divergence:.2e}",
            *(f"{100 * each / total if total else 0:.1f} %" for each in (cost.divergence, so_far)),
            "" if cost.snr_db is None else f"{cost.snr_db:.1f} dB",
            cost.rule or "weights only",
        )
    return table
