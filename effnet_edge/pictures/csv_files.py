"""CSV files that list pictures: rows with the number of their line, and the pictures they name."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def picture_rows(
    file: Path, rows: Iterator[tuple[int, list[str]]], header: list[str]
) -> Iterator[tuple[str, Path, list[str]]]:
    """Of each row after the header: the file and line in words, the picture, and the row itself.

    Raises:
        UsageError: a row has other columns than the header, or its picture does not exist.
    """
    path_at = header.index("path")
    for line, row in rows:
        place = f"{str(file)!r}, line {line}"
        if len(row) != len(header):
            raise UsageError(f"{place}: {len(row)} columns where the header names {len(header)}")
        path = file.parent / row[path_at]
        if not is_file(path):
            raise UsageError(f"{place}: the picture {str(path)!r} does not exist")
        yield place, path, row


class Tellings:
    """What the lines of a file tell of each picture; one may be listed again, but not otherwise."""

    def __init__(self) -> None:
        self._first: dict[object, tuple[str, object]] = {}

    def add(self, place: str, picture: object, told: object) -> None:
        """Take what a line, in words, tells of a picture.

        Raises:
            UsageError: another line told something else.
        """
        first_place, first = self._first.setdefault(picture, (place, told))
        if told != first:
            raise UsageError(
                f"{place}: {str(picture)!r} is told otherwise than in {first_place}: leave one out"
            )


def header_of(
    file: Path, rows: Iterator[tuple[int, list[str]]], known: Sequence[str]
) -> tuple[str, list[str]]:
    """Where the header stands, in words, and the names of the columns.

    Raises:
        UsageError: there is no column "path", or two columns have one of the names `known`.
    """
    line, header = next(rows, (1, []))
    header = [name.strip() for name in header]
    place = f"{str(file)!r}, line {line}"
    for name in ("path", *known):
        if header.count(name) > 1:
            raise UsageError(f"{place}: the column {name!r} is named twice")
    if "path" not in header:
        raise UsageError(f"{place}: no column 'path'; the header must name one")
    return place, header


def is_file(path: Path) -> bool:
    """Whether there is a file of that name that may be looked at."""
    try:
        return path.is_file()
    except OSError:  # a name too long, a folder that may not be entered
        return False


def csv_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its first line.

    Raises:
        UsageError: there is no such file, or it is no CSV in UTF-8; the line is named.
    """
    text = text_of(file, "give a CSV file of pictures", "its first line must name the columns")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UsageError(f"{str(file)!r}, line {line}: not CSV: {error}") from error
        if row:
            yield line, row


def text_of(file: Path, instead: str, needs: str = "it must have lines") -> str:
    """The text of a file.

    Args:
        instead: what to do where it is not there.
        needs: what to do where it is empty.

    Raises:
        UsageError: it is not there, empty, or not UTF-8.
    """
    name = repr(str(file))
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"{name} does not exist; {instead}") from error
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error
    if not content.strip():
        raise UsageError(f"{name} is empty; {needs}")
    nul = content.find(b"\0")
    if nul >= 0:
        raise UsageError(f"{name}, line {_line_at(content, nul)}: a NUL byte; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line_at(content, error.start)
        raise UsageError(f"{name}, line {line}: not UTF-8; save it as UTF-8") from error


def _line_at(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1
