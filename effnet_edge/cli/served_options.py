"""The options that tell how served models are asked."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_TIMEOUT = 3600


def served_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add --timeout and --tensors, which the command gets as `timeout` and `form`, or None."""

    @wraps(command)
    def with_asking(*arguments: object, **options: object) -> object:
        return command(*arguments, **options)

    for option in (
        click.option(
            "--tensors",
            "form",
            type=click.Choice(["binary", "json"]),
            help="How a served model is asked by http. [default: binary where the server says that "
            "it takes it]",
        ),
        click.option(
            "--timeout",
            type=click.IntRange(1, LONGEST_TIMEOUT),
            metavar="SECONDS",
            help="The most that a served model may take for an answer. [default: 60]",
        ),
    ):
        with_asking = option(with_asking)
    return with_asking
