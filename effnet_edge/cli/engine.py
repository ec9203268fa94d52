"""The options of every command that runs an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from effnet_edge.machine import most_threads

Command = TypeVar("Command", bound=Callable[..., object])


def engine_options(command: Command) -> Command:
    """Add --device, --threads and --precision."""
    command = click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        help="Arithmetic to ask the device for. [default: FP32 bundles in FP32, others its own]",
    )(command)
    command = click.option(
        "--threads",
        type=click.IntRange(1, most_threads()),
        help="CPU threads. [default: the engine's choice]",
    )(command)
    return click.option("--device", help="Such as CPU or GPU. [default: CPU]")(command)
