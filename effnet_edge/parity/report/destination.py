"""Where a report may be written: nothing but an older report is ever replaced."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError, WriteError
from effnet_edge.extras import needed_for
from effnet_edge.files import probe_writable, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

GENERATOR = "effnet-edge parity"
"""What every file of a report names as its maker, near its beginning."""

_BEGINNING = 2048
_LIBRARY = "jinja2"


@dataclass(frozen=True)
class ReportFiles:
    """The files of one report: `X.html`, `X.parity.json` and `X.junit.xml`."""

    html: Path
    json: Path
    junit: Path

    @classmethod
    def of(cls, html: str | os.PathLike[str]) -> ReportFiles:
        """Name them after the page; raises UsageError for a name that does not end in .html."""
        page = Path(html)
        _check_is_html(page)
        return cls(page, page.with_suffix(".parity.json"), page.with_suffix(".junit.xml"))

    def check(self) -> None:
        """Find out before any work whether they can be written.

        Raises:
            UsageError: one of them is there and is no report of ours, or cannot be written.
            BackendError: the libraries of the extra [report] are not installed.
        """
        check_destinations(
            {
                self.html: _mark_of(GENERATOR),
                self.json: f'"generator": "{GENERATOR}"',
                self.junit: f'<testsuite name="{GENERATOR}"',
            }
        )


def check_page(path: Path, generator: str) -> None:
    """Find out before any work whether a report that is one page alone can be written.

    Args:
        generator: what the page names as its maker.

    Raises:
        UsageError: its name does not end in .html, what is there is no such page, or it cannot be
            written.
        BackendError: the extra [report] is not installed.
    """
    _check_is_html(path)
    check_destinations({path: _mark_of(generator)})


def write_page(path: Path, generator: str, html: str) -> None:
    """Write such a page, whole or not at all; raises as `check_page` and `write_text`."""
    check_page(path, generator)
    write_text(path, html)


def write_text(path: Path, text: str) -> None:
    """Write a file of a report, whole or not at all.

    Raises:
        WriteError: the disk refuses.
    """
    try:
        write_whole(path, text)
    except OSError as error:
        raise WriteError(f"{str(path)!r} cannot be written: {error.strerror}") from error


def check_destinations(marks: Mapping[Path, str]) -> None:
    """Find out before any work whether the files of a report can be written.

    Args:
        marks: what an older one of ours has near its beginning, by file.

    Raises:
        UsageError, BackendError: as of `ReportFiles.check`.
    """
    with needed_for("a report", "report"):
        if importlib.util.find_spec(_LIBRARY) is None:
            raise ModuleNotFoundError(name=_LIBRARY)
    for path, mark in marks.items():
        try:
            if os.path.lexists(path) and not _begins_with(path, mark):
                raise UsageError(
                    f"{str(path)!r} is there and is no report of effnet-edge: it is not "
                    "replaced; choose another --report"
                )
            probe_writable(path)
        except OSError as error:
            raise UsageError(f"{str(path)!r} cannot be written: {error.strerror}") from error


def _check_is_html(page: Path) -> None:
    if page.suffix != ".html":
        raise UsageError(f"--report {page}: a report is HTML: the name must end in .html")


def _mark_of(generator: str) -> str:
    return f'<meta name="generator" content="{generator}">'


def _begins_with(path: Path, mark: str) -> bool:
    if not path.is_file():  # not a pipe either, which would have to be waited for
        return False
    with path.open("rb") as file:
        return mark.encode() in file.read(_BEGINNING)
