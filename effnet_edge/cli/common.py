"""What the commands share: common options, the two consoles, and JSON output."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO, TypeVar

import click

from effnet_edge import nonfinite

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from effnet_edge.progress import Steps

Command = TypeVar("Command", bound=Callable[..., object])


@dataclass
class Settings:
    """The options that every command has."""

    quiet: bool = False
    debug: bool = False
    json: bool = False


def common_options(command: Command) -> Command:
    """Add --json, --quiet and --debug, which land in the context's `Settings`."""
    for name, text in (
        ("debug", "Show the traceback of an error."),
        ("quiet", "Print the result only: no progress, no advice."),
        ("json", "Print the result as JSON on standard output."),
    ):
        command = click.option(
            f"--{name}",
            is_flag=True,
            # Before any argument is refused, so that --debug shows where.
            is_eager=True,
            expose_value=False,
            callback=_remember(name),
            help=text,
        )(command)
    return command


def _remember(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def remember(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:  # given before the command's name or after it
            setattr(context.ensure_object(Settings), name, True)

    return remember


def settings() -> Settings:
    """Those of the command that is running."""
    return click.get_current_context().ensure_object(Settings)


def print_json(document: object) -> None:
    """One JSON document on standard output, numbers as `effnet_edge.nonfinite` says."""
    click.echo(nonfinite.dumps(document))


def console() -> Console:
    """Standard output, for results that a person reads."""
    from rich.console import Console

    # A pipe has no width: do not fold the lines of a table that a script may read.
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)


def complain(message: str) -> None:
    """An error, in one line on standard error."""
    click.echo(f"effnet-edge: error: {' '.join(message.split())}", err=True)


def say(line: str) -> None:
    """A remark on standard error; silent with --quiet and --json."""
    if not (settings().quiet or settings().json):
        click.echo(line, err=True)


@contextmanager
def calibration_warnings() -> Iterator[None]:
    """Print what the calibration warns of as one line each; silent with --quiet."""
    from effnet_calibration.errors import CalibrationWarning

    with warnings.catch_warnings():
        show = warnings.showwarning

        def tell(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, CalibrationWarning):
                show(message, category, filename, lineno, file, line)
            elif not settings().quiet:
                click.echo(f"effnet-edge: warning: {message}", err=True)

        warnings.showwarning = tell
        warnings.simplefilter("always", CalibrationWarning)
        yield


@contextmanager
def progress_bar(label: str) -> Iterator[Steps]:
    """A bar on standard error; yields what is to be called with (done, total).

    Without a terminal, or with --quiet, nothing is shown.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    errors = Console(stderr=True)
    hidden = settings().quiet or not errors.is_terminal
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Progress(*columns, console=errors, disable=hidden, transient=True) as progress:
        task = progress.add_task(label, total=None)

        def update(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield update


class StageDisplay:
    """Shows which stage of a long job runs: a line a stage, without a terminal."""

    def stage(self, text: str) -> None:
        """A stage begins."""
        say(text)

    def progress(self, part: str, done: int, total: int) -> None:
        """`done` of `total` steps of a part of the stage are done."""


class _LiveStageDisplay(StageDisplay):
    """On a terminal: a bar with the time so far and, where there are steps, the time left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._text = ""
        self._task = progress.add_task("", total=None)

    def stage(self, text: str) -> None:
        self._text = text
        self._progress.reset(self._task, total=None, description=text)

    def progress(self, part: str, done: int, total: int) -> None:
        self._progress.update(
            self._task, description=f"{self._text}: {part}", completed=done, total=total
        )


@contextmanager
def stage_display() -> Iterator[StageDisplay]:
    """Where a long job says which stage it is in; nothing with --quiet."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    errors = Console(stderr=True)
    if settings().quiet or not errors.is_terminal:
        yield StageDisplay()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as progress:
        yield _LiveStageDisplay(progress)
