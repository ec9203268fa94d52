"""The options that tell what a model file does not tell of itself."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, TypeAlias

import click

if TYPE_CHECKING:
    from collections.abc import Callable

SaidValues: TypeAlias = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""Of --layout, --pixels, --output and --ending, as `effnet_export.said.Said` takes them."""

_OPTIONS = (
    (
        "--layout",
        "nchw|nhwc",
        "Axes of a model file's input, where shape and graph do not tell; MODEL=nhwc for one of "
        "several.",
    ),
    (
        "--pixels",
        "normalized|0..1|0..255",
        "What a model file's input takes for pixels. [default: what its first nodes expect]",
    ),
    (
        "--output",
        "NAME",
        "The output to compare of a model file that has several; MODEL=NAME for one of several.",
    ),
    (
        "--ending",
        "logits|softmax|log-softmax|sigmoid",
        "What a model file's output went through last, where its graph does not show it. "
        "[default: what its answers look like]",
    ),
)


def model_file_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add --layout, --pixels, --output and --ending, for all model files or as MODEL=VALUE for one.

    The command gets them as `said`.
    """

    @wraps(command)
    def with_said(
        *arguments: object,
        layout: tuple[str, ...],
        pixels: tuple[str, ...],
        output: tuple[str, ...],
        ending: tuple[str, ...],
        **others: object,
    ) -> object:
        return command(*arguments, said=(layout, pixels, output, ending), **others)

    for name, metavar, told in reversed(_OPTIONS):
        option = click.option(name, multiple=True, metavar=f"[MODEL=]{metavar}", help=told)
        with_said = option(with_said)
    return with_said
