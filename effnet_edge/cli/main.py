"""`effnet-edge`: the group of commands, and how every error reaches a person."""

from __future__ import annotations

import errno
import os
import signal
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

import click

from effnet_edge import __version__
from effnet_edge.appeared import noting
from effnet_edge.cli import (
    bench,
    build,
    calibration,
    deploy,
    doctor,
    export,
    fleet,
    info,
    listing,
    parity,
    predict,
    sensitivity,
    sign,
    tune,
    verify,
)
from effnet_edge.cli.common import Settings, common_options, complain, told_warnings
from effnet_edge.cli.ending import INTERRUPTED, NOTHING_WRITTEN, READER_LEFT, CtrlC, ReaderLeftError
from effnet_edge.cli.variant_names import did_you_mean
from effnet_edge.errors import NO_MEMORY, EffnetEdgeError, is_lack_of_memory

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

# Click keeps a paragraph's lines as they are after a backspace character.
HELP = """Take an EfficientNet from PyTorch to an edge engine, proven to be the same model.

\b
Start here:
  effnet-edge export b0 --target openvino
  effnet-edge predict b0-openvino-fp16 PHOTO
"""


# Before version 8.2, click prints the help of a group and exits with 0 by itself.
_HELP_ASKED: tuple[type[click.UsageError], ...] = tuple(
    filter(None, [getattr(click.exceptions, "NoArgsIsHelpError", None)])
)


# Of what is there when Ctrl-C ends a command.
_MOST_NAMED = 3


class _Commands(click.Group):
    """Names the commands that are like one that does not exist."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            hint = did_you_mean(args[0], self.commands) or f": choose {', '.join(self.commands)}"
            ctx.fail(f"no such command '{args[0]}'{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            with told_warnings():
                return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderLeftError from error


@click.group(cls=_Commands, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="effnet-edge")
@common_options
def cli() -> None:
    """Hold the commands."""


for module in (
    export,
    tune,
    build,
    predict,
    parity,
    bench,
    fleet,
    sensitivity,
    calibration,
    info,
    verify,
    sign,
    deploy,
    listing,
    doctor,
):
    cli.add_command(module.command)


def main() -> NoReturn:
    """Run the command line and exit.

    The exit code is 0 done, 1 a failed job or gate, 2 bad use, 130 Ctrl-C, and 141 where nobody
    read the output to the end.
    """
    settings = Settings()
    _fill_closed_streams()
    # PyTorch's OpenMP threads spin while they wait for one another: where another program has a
    # core, that is most of what a calibration computes. Read when a command loads PyTorch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    CtrlC.install()
    for number in _signals_to_leave_on():
        signal.signal(number, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # What the terminal's encoding lacks is shown as an escape.
            stream.reconfigure(errors="backslashreplace")
    code = _exit_code(settings)
    CtrlC.end_at_once(code)
    sys.exit(code)


def _exit_code(settings: Settings) -> int:
    """Run the command line; what comes of it, told."""
    try:
        code = _carried_out(settings)
    except BrokenPipeError:
        # Everything is done, and whoever read our output has seen enough.
        _discard_output()
    except ReaderLeftError:
        _discard_output()
        code = READER_LEFT
    except _HELP_ASKED as error:
        click.echo(error.format_message())
        code = 0
    except Exception as error:
        if settings.debug:
            raise
        message, code = _told(error)
        if isinstance(error, OSError):
            message += "" if error.filename else _told_of_output()
            _discard_output()
        _complain(message, code)
    return code


def _carried_out(settings: Settings) -> int:
    """Run the command, until Ctrl-C at most; its exit code.

    Raises:
        Exception: it failed.
    """
    with noting() as written:
        try:
            try:
                code: int = cli.main(standalone_mode=False, obj=settings) or 0
            except click.exceptions.Exit as exit_request:
                code = exit_request.exit_code
            _flush()
        except (click.Abort, KeyboardInterrupt):
            CtrlC.ignore()
            code = _complain(_told_interruption(written()), INTERRUPTED)
    return code


def _told_interruption(places: list[Path]) -> str:
    """What Ctrl-C leaves, by the places of the outputs that are there."""
    if not places:
        return NOTHING_WRITTEN
    names = [str(place) for place in places[:_MOST_NAMED]]
    if more := len(places) - len(names):
        names.append(f"{more} more")
    told = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return (
        f"interrupted: {told} {'is' if len(places) == 1 else 'are'} written whole, and nothing else"
    )


def _told(error: Exception) -> tuple[str, int]:
    """The line for an error, and the exit code."""
    if isinstance(error, click.ClickException):
        return _usage_message(error), error.exit_code
    if isinstance(error, EffnetEdgeError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        # Nothing has such a name, as nothing has one that does not exist.
        return _system_message(error), 2 if error.errno == errno.ENAMETOOLONG else 1
    if is_lack_of_memory(error):
        return NO_MEMORY, 1
    return (
        f"unexpected {type(error).__name__}: {error} (this is a bug: "
        "run the command again with --debug and report what it prints)",
        1,
    )


def _fill_closed_streams() -> None:
    """Keep the numbers of closed standard streams from the next file that is opened.

    What a library prints would go into it: into a model that is being written, for instance.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one


def _signals_to_leave_on() -> list[signal.Signals]:
    """SIGTERM, and the SIGHUP of a lost terminal unless nohup has turned it off."""
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return [signal.SIGTERM]
    return [signal.SIGTERM, hangup]


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    """Leave through the `finally` clauses, so that nothing half-written stays."""
    sys.exit(128 + number)


def _flush() -> None:
    """Write out what was printed, where an error still has an exit code."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _told_of_output() -> str:
    """That it is the standard output which cannot be written, if so: a line's end shows it."""
    try:
        os.write(1, b"\n")
    except OSError:
        return ": standard output"
    return ""


def _discard_output() -> None:
    """Let nothing more go to standard output; Python would complain while closing it."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _system_message(error: OSError) -> str:
    where = f": {os.fsdecode(error.filename)}" if error.filename else ""
    return f"the system refuses: {error.strerror or error}{where}"


def _usage_message(error: click.ClickException) -> str:
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" (see {error.ctx.command_path} --help)"
    return error.format_message() + hint


def _complain(message: str, code: int) -> int:
    complain(message)
    return code
