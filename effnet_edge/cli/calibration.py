"""`effnet-edge calibration`: looks into calibration tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from effnet_edge.cli.common import common_options, print_json, say, settings
from effnet_edge.text import plain

if TYPE_CHECKING:
    from effnet_calibration.table import CalibrationTable

_TABLE = click.Path(exists=True, path_type=Path)


@click.group("calibration", short_help="Compare calibration tables.")
def command() -> None:
    """Look into what `export --int8` found: calibration tables, or the bundles that hold them."""


@command.command("diff", short_help="Say what differs between two tables.")
@click.argument("before", metavar="TABLE.json|BUNDLE", type=_TABLE)
@click.argument("after", metavar="TABLE.json|BUNDLE", type=_TABLE)
@common_options
@click.pass_context
def diff(context: click.Context, before: Path, after: Path) -> None:
    """Print what differs between two calibration tables, a line a value.

    The exit code is that of diff: 0 where they are the same, 1 where they differ, 2 where one
    cannot be read.
    """
    from effnet_calibration.table import difference

    lines = difference(_table(before), _table(after))
    if settings().json:
        print_json({"same": not lines, "differences": lines})
    else:
        for line in lines:
            click.echo(plain(line))
        if not lines:
            say("nothing differs")
    context.exit(1 if lines else 0)


def _table(path: Path) -> CalibrationTable:
    """The table in a file, or that of a bundle."""
    from effnet_calibration.table import CalibrationTable
    from effnet_edge.bundle import Bundle
    from effnet_edge.errors import EffnetEdgeError, UsageError

    try:
        if not path.is_dir():
            return CalibrationTable.load(path)
        return CalibrationTable.of_bundle(Bundle.load(path).of_one_graph())
    except EffnetEdgeError as error:
        raise UsageError(str(error)) from error
