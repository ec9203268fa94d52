"""`effnet-edge tune`: the fastest export within a loss."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from effnet_edge.cli.checked import CheckedCommand
from effnet_edge.cli.common import common_options, say, stage_display
from effnet_edge.cli.destinations import check_bundle, refuse_inside_bundle
from effnet_edge.cli.network_options import (
    NetworkOf,
    batch_option,
    calibration_options,
    labels_option,
    network_options,
    target_option,
)
from effnet_edge.cli.numbers import Number
from effnet_edge.cli.progress_lines import told_left
from effnet_edge.cli.signatures import signing_key_of, signing_option
from effnet_edge.cli.stages import STAGES
from effnet_edge.cli.tune_output import show
from effnet_edge.cli.variant_names import VariantOrBundle
from effnet_edge.errors import GateError, UsageError
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from types import ModuleType

    from effnet_edge.bundle import Bundle
    from effnet_export.tuning.outcome import Tuned
    from effnet_export.tuning.run import Turn

_PRECISION = "tuned"
_STAGES = STAGES | {
    "answers": "answering the held-out pictures with PyTorch",
    "existing": "judging the bundle as it is",
    "observe": "reading the pictures to calibrate on",
    "judge": "judging the loss",
    "time": "timing the candidates in turns",
    "throughput": "timing many calls at once",
    "ends": "timing the smallest and the largest batch",
    "carry": "answering known pictures with each graph",
}


@click.command("tune", cls=CheckedCommand, short_help="Export the fastest within a loss.")
@click.argument("model", type=VariantOrBundle(), metavar="VARIANT|BUNDLE")
@target_option
@calibration_options
@click.option(
    "--max-kl",
    type=Number(min=0),
    metavar="NATS",
    help="The most that may be lost: the KL divergence from PyTorch on pictures held out.",
)
@click.option(
    "--max-drop",
    type=Number(min=0),
    metavar="POINTS",
    help="The same for the top-1 drop; the pictures must be labelled.",
)
@click.option(
    "--max-nrmse",
    type=Number(min=0),
    metavar="SHARE",
    help="The same for a --regression: the root mean square error as a share of the spread of the "
    "values.",
)
@click.option(
    "--max-latency",
    type=Number(min=0, min_open=True),
    metavar="MS",
    help="The most that a call may take on this machine, in the median.",
)
@network_options
@labels_option
@batch_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The bundle's directory. [default: VARIANT-TARGET-tuned]",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Also write a page: loss against time as a picture, and every candidate.",
)
@signing_option
@click.option("--force", is_flag=True, help="Replace a bundle that is there already.")
@common_options
def command(
    model: str,
    target: str,
    calibration: Path | None,
    calibration_size: int,
    max_kl: float | None,
    max_drop: float | None,
    max_nrmse: float | None,
    max_latency: float | None,
    network: NetworkOf,
    labels: Path | None,
    batch: tuple[int, int, int],
    output: Path | None,
    report: Path | None,
    signing_key: Path | None,
    force: bool,
) -> None:
    """Export VARIANT as several candidates, measure them, and write the fastest within the limits.

    Each candidate is an export with all its gates: FP32, FP16 and INT8 of several kinds. What it
    loses is measured on a quarter of the --calibration pictures, on which none is calibrated; its
    time on this machine, all taking turns. Without a limit the bundle is the one of export --int8.

    A BUNDLE tells its variant, checkpoint, pixels, classes and target, and is a candidate, too.
    Without a limit it is then the fastest that loses no more than BUNDLE.

    For TensorRT the bundle carries the graphs of two or three of them that are within the limits;
    effnet-edge build times these on the device and keeps the fastest.
    """
    from effnet_edge.bundle import BatchRange
    from effnet_export.naming import default_directory

    if calibration is None:
        raise UsageError(
            "the loss is judged on pictures like those of the device: give your own, with "
            "--calibration DIR, TAR or CSV"
        )
    limits = {"max_kl": max_kl, "max_drop": max_drop, "max_nrmse": max_nrmse}
    existing = _existing(model, {**limits, "max_latency": max_latency, "report": report})
    variant = model if existing is None else existing.manifest.variant
    target = target if existing is None else existing.manifest.target
    output = output or default_directory(variant, target, _PRECISION)
    _check_output(output, existing, force=force)
    if report is not None:
        _check_report(report)
    key = signing_key_of(signing_key)
    asked = network(variant)
    with stage_display() as display:
        display.stage(_STAGES["load"])  # PyTorch's import takes seconds, too
        modules = _modules()
        if existing is None:
            base = modules.request.ExportRequest(
                network=asked,
                target=target,
                precision="int8",
                labels=labels,
                batch=BatchRange(*batch),
                calibration=calibration,
                calibration_size=calibration_size,
                output=output,
            )
        else:
            base = modules.existing.request_like(
                existing, asked.weights, calibration, calibration_size, output
            )
        on_device = TARGETS[target].built_on_device
        tune = modules.run.tune_for_device if on_device else modules.run.tune
        tuned = tune(
            base,
            modules.limits.Limits.of(**limits, max_latency=max_latency),
            lambda turn, stage: display.stage(_told_stage(turn, stage)),
            display.progress,
            key,
            existing,
        )
    show(tuned)
    if tuned.bundle is None:
        raise GateError(tuned.why_none)
    if report is not None:
        _write_report(tuned, f"{variant} for {target}", report)


def _existing(model: str, given: dict[str, object]) -> Bundle | None:
    """The bundle that is tuned, held to the options that were given; None for a variant."""
    from effnet_edge.bundle import Bundle

    if not Path(model).is_dir():
        return None
    bundle = Bundle.load(model).of_one_graph()
    options = {f"--{name.replace('_', '-')}": value for name, value in given.items()}
    _modules().existing.check_asked(
        bundle.manifest, {name: value for name, value in options.items() if value is not None}
    )
    return bundle


def _check_output(output: Path, existing: Bundle | None, *, force: bool) -> None:
    if existing is not None and os.path.realpath(output) == os.path.realpath(existing.path):
        raise UsageError(f"-o {output}: is the bundle that is tuned: choose another place")
    check_bundle(output, force=force)


def _modules() -> _Modules:
    from effnet_edge.extras import needed_for

    with needed_for("tune", "export"):
        from effnet_export import request
        from effnet_export.tuning import existing, limits, run
    return _Modules(request, existing, limits, run)


@dataclass(frozen=True)
class _Modules:
    """Those of the build host, which import PyTorch."""

    request: ModuleType
    existing: ModuleType
    limits: ModuleType
    run: ModuleType


def _told_stage(turn: Turn | None, stage: str) -> str:
    if turn is None:
        return _STAGES[stage]
    left = "" if turn.seconds_left is None else told_left(turn.seconds_left)
    return f"{turn.number} of {turn.total}, {turn.name}{left}: {_STAGES[stage]}"


def _check_report(report: Path) -> None:
    from effnet_export.tuning.page import check_page

    refuse_inside_bundle(report, "--report")
    check_page(report)


def _write_report(tuned: Tuned, title: str, report: Path) -> None:
    from effnet_edge.machine import processor_name
    from effnet_export.tuning.page import write_page

    write_page(tuned, title, processor_name(), report)
    say(f"drawn in {report}")
