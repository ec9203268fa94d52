"""The options of commands that write a line for each picture."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


def lines_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add --jsonl and --resume; the latter is refused without the former."""

    @wraps(command)
    def with_lines(
        *arguments: object, jsonl: Path | None, resume: bool, **others: object
    ) -> object:
        if resume and jsonl is None:
            raise UsageError("--resume goes with --jsonl FILE: nothing else can be gone on with")
        return command(*arguments, jsonl=jsonl, resume=resume, **others)

    for option in (
        click.option(
            "--resume",
            is_flag=True,
            help="Go on with the file of --jsonl: pictures that have a line are not asked again.",
        ),
        click.option(
            "--jsonl",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Write a line of JSON for each picture as soon as it is answered.",
        ),
    ):
        with_lines = option(with_lines)
    return with_lines
