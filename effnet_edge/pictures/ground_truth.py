"""Files that tell the classes of a folder's pictures, as ImageNet's validation set comes with.

A line for each picture: its class alone, for the pictures in the order of their names, or its name
and its class. A class is a class index, a WordNet id, a name without blanks, or a number of
ILSVRC's own.
The latter, 1 to 1000, are in another order than the class indices of all networks, which are those
of the sorted WordNet ids: the devkit's meta.mat or map_clsloc.txt tells the one from the other.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError, first_line
from effnet_edge.extras import needed_for
from effnet_edge.pictures.csv_files import is_file, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from effnet_edge.pictures.sets import ImageSet

_NUMBER = re.compile(r"[0-9]{1,9}")
_META, _MAP = "meta.mat", "map_clsloc.txt"


def labelled(images: ImageSet, file: Path, classes: Mapping[str, int] | None) -> ImageSet:
    """The pictures with the classes that the file tells.

    Args:
        classes: class index by name or WordNet id.

    Raises:
        UsageError: the file tells another number of classes than there are pictures, not that of
            each, or something that is no class; the line is named.
    """
    rows = _rows(file)
    if len(rows[0]) == 1:
        if len(rows) != len(images):
            raise UsageError(
                f"{str(file)!r} tells the classes of {len(rows)} pictures, and {images.source} has "
                f"{len(images)}"
            )
        texts = [row[0] for row in rows]
        chosen = list(range(len(rows)))
    else:
        texts = [row[1] for row in rows]
        by_name = {row[0]: at for at, row in enumerate(rows)}
        names = [each.name.rsplit("/", 1)[-1] for each in images.paths]
        untold = next((name for name in names if name not in by_name), None)
        if untold is not None:
            raise UsageError(f"{str(file)!r} does not tell the class of {untold!r}")
        chosen = [by_name[name] for name in names]
    indices, numbering = _indices(file, texts, classes)
    source = f"{images.source}, classes from {file}{numbering}"
    return replace(images, labels=tuple(indices[at] for at in chosen), source=source)


def _rows(file: Path) -> list[list[str]]:
    """The words of each line that is not blank, as many of each."""
    rows: list[list[str]] = []
    for line, text in enumerate(text_of(file, "give a file of classes").splitlines(), start=1):
        words = text.rsplit(maxsplit=1)
        if not words:
            continue
        if rows and len(words) != len(rows[0]):
            raise UsageError(
                f"{str(file)!r}, line {line}: give a class in each line, or a name and a class"
            )
        rows.append(words)
    return rows


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
    return classes[text]


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
