"""Files that tell the classes of a folder's pictures, as ImageNet's validation set comes with.

A line for each picture: its class alone, for the pictures in the order of their names, or its name
or path and its class. A class is a class index, a WordNet id, a name without blanks, or a number of
ILSVRC's own.
The latter, 1 to 1000, are in another order than the class indices of all networks, which are those
of the sorted WordNet ids: the devkit's meta.mat or map_clsloc.txt tells the one from the other.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from effnet_edge.errors import UsageError, first_line
from effnet_edge.extras import needed_for
from effnet_edge.labels import index_of
from effnet_edge.pictures.csv_files import Tellings, is_file, text_of
from effnet_edge.pictures.shards import ShardMember

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from effnet_edge.pictures.sets import ImageSet

_NUMBER = re.compile(r"[0-9]{1,9}")
_META, _MAP = "meta.mat", "map_clsloc.txt"
_SHOWN = 3


def labelled(images: ImageSet, file: Path, classes: Mapping[str, int] | None) -> ImageSet:
    """The pictures with the classes that the file tells.

    Args:
        classes: class index by name or WordNet id.

    Raises:
        UsageError: the file tells another number of classes than there are pictures, not that of
            each, two of one, one of what may be several pictures, or something that is no class.
    """
    rows = _rows(file)
    indices, numbering = _indices(file, [row.text for row in rows], classes)
    if rows[0].name is not None:
        indices = _by_name(images, file, rows, indices)
    elif len(rows) != len(images):
        raise UsageError(
            f"{str(file)!r} tells the classes of {len(rows)} pictures, and {images.source} has "
            f"{len(images)}"
        )
    source = f"{images.source}, classes from {file}{numbering}"
    return replace(images, labels=tuple(indices), source=source)


class _Row(NamedTuple):
    """A line that is not blank: where it stands, the picture's name if it has one, its class."""

    place: str
    name: str | None
    text: str


def _rows(file: Path) -> list[_Row]:
    """The lines that are not blank; all of them have a name, or none has."""
    rows: list[_Row] = []
    for line, text in enumerate(text_of(file, "give a file of classes").splitlines(), start=1):
        words = text.rsplit(maxsplit=1)
        if not words:
            continue
        place = f"{str(file)!r}, line {line}"
        name = PurePosixPath(words[0].strip()).as_posix() if len(words) > 1 else None
        if rows and (name is None) != (rows[0].name is None):
            raise UsageError(f"{place}: give a class in each line, or a name and a class")
        rows.append(_Row(place, name, words[-1]))
    return rows


def _by_name(images: ImageSet, file: Path, rows: list[_Row], indices: list[int]) -> list[int]:
    """The class index of each picture, of which a line tells the name, or the end of the path."""
    told: dict[str | None, int] = {}
    tellings = Tellings()
    for at, (row, index) in enumerate(zip(rows, indices, strict=True)):
        tellings.add(row.place, row.name, index)
        told.setdefault(row.name, at)
    pictures: dict[int, list[str]] = {}
    chosen = []
    for picture, shown in zip(images.paths, _shown(images), strict=True):
        end = next((end for end in _ends(_path_of(picture)) if end in told), None)
        if end is None:
            raise UsageError(f"{str(file)!r} does not tell the class of {shown!r}")
        chosen.append(told[end])
        pictures.setdefault(told[end], []).append(shown)
    for at, several in pictures.items():
        if len(several) > 1:
            raise _ambiguous(rows[at], several)
    return [indices[at] for at in chosen]


def _ambiguous(row: _Row, pictures: list[str]) -> UsageError:
    named = ", ".join(map(repr, pictures[:_SHOWN])) + (", …" if pictures[_SHOWN:] else "")
    return UsageError(
        f"{row.place}: {row.name!r} may be any of {len(pictures)} pictures ({named}): give their "
        "paths"
    )


def _path_of(picture: Path | ShardMember) -> str:
    return picture.member if isinstance(picture, ShardMember) else picture.as_posix()


def _shown(images: ImageSet) -> list[str]:
    """The paths of the pictures below the folder, or from the archive, that they all are in."""
    names = [each.name if isinstance(each, ShardMember) else str(each) for each in images.paths]
    common = os.path.commonpath([Path(name).parent for name in names])
    return [os.path.relpath(name, common) if common else name for name in names]


def _ends(path: str) -> Iterator[str]:
    """The path, and what remains of it after each of its folders; the longest first."""
    yield path
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _indices(
    file: Path, texts: list[str], classes: Mapping[str, int] | None
) -> tuple[list[int], str]:
    """The class indices, and how they were told where that is not plain."""
    named = [text for text in texts if not _NUMBER.fullmatch(text)]
    if named:
        _known(file, named[0], classes)
        return [_known(file, text, classes) for text in texts], ""
    numbers = [int(text) for text in texts]
    if 0 in numbers:
        return numbers, ""
    wnids = _ilsvrc_wnids(file.parent)
    if wnids is None:
        raise UsageError(
            f"{str(file)!r} has no 0: class indices begin with it, and ILSVRC's own numbers, which "
            f"are in another order, with 1: put the devkit's {_META} or {_MAP} beside it, or give "
            "WordNet ids, or a CSV file with class_index"
        )
    unknown = next((number for number in numbers if number not in wnids), None)
    if unknown is not None:
        raise UsageError(f"{str(file)!r}: {unknown} is no number of ILSVRC's")
    told = " (ILSVRC's own numbers)"
    return [_known(file, wnids[number], classes) for number in numbers], told


def _known(file: Path, text: str, classes: Mapping[str, int] | None) -> int:
    if classes is None or text not in classes:
        raise UsageError(f"{str(file)!r}: {text!r} is none of the model's classes")
    return index_of(text, classes, repr(str(file)))


def _ilsvrc_wnids(devkit: Path) -> dict[int, str] | None:
    """WordNet id by ILSVRC's number, from the devkit's files in this folder; None without them."""
    table = devkit / _MAP
    if is_file(table):
        rows = [line.split() for line in text_of(table, "give ILSVRC's table").splitlines()]
        return {int(row[1]): row[0] for row in rows if len(row) > 1 and row[1].isdigit()}
    return _of_meta(devkit / _META) if is_file(devkit / _META) else None


def _of_meta(file: Path) -> dict[int, str]:
    with needed_for(f"ILSVRC's {_META}", "export", f"or put the devkit's {_MAP} beside it"):
        from scipy.io import loadmat
    try:
        synsets = loadmat(str(file), squeeze_me=True)["synsets"]
        pairs = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
        return {int(number): str(wnid) for number, wnid in pairs}
    except Exception as error:  # scipy lets out whatever a damaged file leads to
        raise UsageError(
            f"{str(file)!r} is no {_META} of ILSVRC2012: {first_line(error)}"
        ) from error
