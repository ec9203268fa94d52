"""The options of commands that write a line for each picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from effnet_edge.cli.destinations import outside_bundles

if TYPE_CHECKING:
    from collections.abc import Callable


def lines_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add --jsonl and --resume."""
    for option in (
        click.option(
            "--resume",
            is_flag=True,
            help="Go on with what a run that was killed has written: no picture is answered twice.",
        ),
        click.option(
            "--jsonl",
            type=click.Path(dir_okay=False, path_type=Path),
            callback=outside_bundles,
            metavar="FILE",
            help="Write a line of JSON for each picture as soon as it is answered.",
        ),
    ):
        command = option(command)
    return command
