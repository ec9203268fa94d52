"""Where the commands write: found out before any work, and nothing foreign is ever replaced."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click

from effnet_edge.errors import BundleError, UsageError
from effnet_edge.files import probe_writable


def check_bundle(directory: Path, *, force: bool) -> None:
    """Raise UsageError where a bundle cannot be written there.

    Args:
        force: replace the bundle that is there; what is none is never replaced.
    """
    from effnet_edge.bundle.manifest import MANIFEST_FILE
    from effnet_edge.bundle.writing import checked_destination

    refuse_inside_bundle(directory, "-o")
    if not force and os.path.lexists(directory / MANIFEST_FILE):
        raise UsageError(f"{directory} is there already: --force replaces it, -o names another")
    checked_destination(directory)
    place = next(each for each in directory.absolute().parents if each.exists())
    try:
        probe_writable(place / directory.absolute().name)
    except OSError as error:
        raise UsageError(f"-o {directory}: cannot be written: {error.strerror}") from error


def check_report(html: Path) -> None:
    """Raise UsageError or BackendError where a report cannot be written there."""
    from effnet_edge.parity.report.destination import ReportFiles

    files = ReportFiles.of(html)
    refuse_inside_bundle(html, "--report")
    files.check()


def outside_bundles(
    _context: click.Context, option: click.Parameter, path: Path | None
) -> Path | None:
    """Check the value of an option: UsageError for a file or folder in a bundle."""
    if path is not None:
        is_folder = isinstance(option.type, click.Path) and not option.type.file_okay
        refuse_inside_bundle(path, option.opts[0], is_folder=is_folder)
    return path


def check_plot(plot: Path) -> None:
    """Raise UsageError or BackendError where a plot cannot be drawn there."""
    from effnet_calibration import sensitivity_plot

    refuse_inside_bundle(plot, "--plot")
    sensitivity_plot.check_plot(plot)


def refuse_inside_bundle(path: Path, option: str, *, is_folder: bool = False) -> None:
    """Raise UsageError for what would lie in a bundle, which is damaged by a foreign file.

    Where links lead in a circle, or a name is too long, nothing lies anywhere: refused, too.

    Args:
        is_folder: files are written into the path, which may then be no bundle either.
    """
    from effnet_edge.bundle.reading import read_manifest

    _refuse_impossible(path, option)
    own = Path(os.path.realpath(path))
    for folder in (own, *own.parents) if is_folder else own.parents:
        try:
            read_manifest(folder)
        except BundleError:  # of another program, or none
            continue
        raise UsageError(
            f"{option} {path}: {'is' if folder == own else 'lies in'} the bundle {folder}, which "
            "holds nothing but its own files: choose another place"
        )


def _refuse_impossible(path: Path, option: str) -> None:
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UsageError(
                f"{option} {path}: the symbolic links on this way lead in a circle: choose another "
                "place"
            ) from error
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(
                f"{option} {path}: cannot be written: no file can have so long a name: choose a "
                "shorter one"
            ) from error
