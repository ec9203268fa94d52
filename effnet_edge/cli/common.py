"""What the commands share: common options, the two consoles, and JSON output."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from effnet_edge import nonfinite
from effnet_edge.cli.ending import CtrlC, ReaderLeftError
from effnet_edge.cli.progress_lines import ProgressLines
from effnet_edge.errors import EffnetEdgeWarning
from effnet_edge.text import one_plain_line, plain, plain_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TextColumn
    from rich.text import Text

    from effnet_edge.progress import Steps

Command = TypeVar("Command", bound=Callable[..., object])


@dataclass
class Settings:
    """The options that every command has.

    Attributes:
        warnings: what the command has warned of so far.
    """

    quiet: bool = False
    debug: bool = False
    json: bool = False
    warnings: list[str] = field(default_factory=list)


def common_options(command: Command) -> Command:
    """Add --json, --quiet and --debug, which land in the context's `Settings`."""
    for name, text in (
        ("debug", "Show the traceback of an error."),
        ("quiet", "Print the result, warnings and errors only: no progress, no advice."),
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


def print_document(document: Mapping[str, object]) -> None:
    """The same, with what was warned of on the way as its `warnings`."""
    print_json({**document, "warnings": settings().warnings})


def console() -> Console:
    """Standard output, for results that a person reads."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    # A pipe has no width: do not fold the lines of a table that a script may read.
    return _plain_console(soft_wrap=True, width=None if terminal else 160)


def _plain_console(**options: Any) -> Console:
    """A console that shows text as it is: no markup, no emoji codes, no control characters.

    A string is one line, whatever names are in it; lines of their own are asked for with a `Text`.
    Tables are as wide as it is, and what does not fit into a cell goes on below: nothing is cut.
    """
    from rich.console import Console
    from rich.table import Table

    class PlainConsole(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            for each in objects:
                _make_plain(each)
                for column in each.columns if isinstance(each, Table) else ():
                    column.overflow = "fold"
            super().print(*objects, **options)

        def on_broken_pipe(self) -> None:
            raise ReaderLeftError

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(plain(text), **options)

    return PlainConsole(markup=False, emoji=False, highlight=False, **options)


def _make_plain(shown: object) -> None:
    """Show in a `Text`, and in those of a table, what would act; strings the console sees to."""
    from rich.table import Table
    from rich.text import Text

    if isinstance(shown, Text):
        shown.plain = plain_lines(shown.plain)
    elif isinstance(shown, Table):
        parts: list[object] = [shown.title, shown.caption]
        for column in shown.columns:
            parts += [column.header, column.footer, *column.cells]
        for part in parts:
            _make_plain(part)


def complain(message: str) -> None:
    """An error, in one line on standard error."""
    click.echo(f"effnet-edge: error: {one_plain_line(message)}", err=True)


class UntilInterrupted:
    """A block that Ctrl-C ends early, without an error.

    Attributes:
        interrupted: whether it did.
    """

    def __init__(self) -> None:
        self.interrupted = False

    def __enter__(self) -> UntilInterrupted:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self.interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        if self.interrupted:
            CtrlC.ignore()
        return self.interrupted


def say(line: str) -> None:
    """A remark on standard error; silent with --quiet and --json."""
    if not (settings().quiet or settings().json):
        click.echo(plain(line), err=True)


def say_progress(line: str) -> None:
    """How far long work is, on standard error; silent with --quiet."""
    if not settings().quiet:
        click.echo(plain(line), err=True)


@contextmanager
def told_warnings() -> Iterator[None]:
    """Print each of our warnings once, in a line on standard error, and keep it for --json.

    They say that something is not as a file has it, or that the result may be poorer: --quiet,
    which asks for the result alone, hides none of them.
    """
    told = settings().warnings
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
            if not issubclass(category, EffnetEdgeWarning):
                show(message, category, filename, lineno, file, line)
            elif str(message) not in told:
                told.append(str(message))
                click.echo(f"effnet-edge: warning: {message}", err=True)

        warnings.showwarning = tell
        warnings.simplefilter("always", EffnetEdgeWarning)
        yield


@contextmanager
def progress_bar(label: str) -> Iterator[Steps]:
    """A bar on standard error; yields what is to be called with (done, total).

    Without a terminal it is a line now and then; with --quiet nothing is shown.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress
    from rich.progress import TimeRemainingColumn as TimeLeft

    errors, label = _plain_console(stderr=True), plain(label)
    if not errors.is_terminal:
        lines = ProgressLines(say_progress)
        yield lambda done, total: lines.update(label, done, total)
        return
    hidden = settings().quiet
    columns = (_description(), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Progress(*columns, console=errors, disable=hidden, transient=True) as progress:
        task = progress.add_task(label, total=None)

        def update(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total or None)

        yield update


def _description() -> TextColumn:
    from rich.progress import TextColumn

    return TextColumn("{task.description}", markup=False)


class StageDisplay:
    """Shows which stage of a long job runs: without a terminal, in lines."""

    def __init__(self) -> None:
        self._lines = ProgressLines(say_progress)
        self._text = ""

    def stage(self, text: str) -> None:
        """A stage begins; one that is told again goes on."""
        if text != self._text:
            say(text)
        self._text = text

    def progress(self, part: str, done: int, total: int) -> None:
        """`done` of `total` steps of a part of the stage are done."""
        self._lines.update(part, done, total)


class _LiveStageDisplay(StageDisplay):
    """On a terminal: a bar with the time so far and, where there are steps, the time left."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def stage(self, text: str) -> None:
        self._text = plain(text)
        self._progress.reset(self._task, total=None, description=self._text)

    def progress(self, part: str, done: int, total: int) -> None:
        self._progress.update(
            self._task, description=f"{self._text}: {plain(part)}", completed=done, total=total
        )


@contextmanager
def stage_display() -> Iterator[StageDisplay]:
    """Where a long job says which stage it is in; nothing with --quiet."""
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    errors = _plain_console(stderr=True)
    if settings().quiet or not errors.is_terminal:
        yield StageDisplay()
        return
    columns = (
        SpinnerColumn(),
        _description(),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as progress:
        yield _LiveStageDisplay(progress)
