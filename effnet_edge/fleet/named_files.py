"""Whether the files that an export's options name are still those of an earlier run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from effnet_edge.bundle.content import sha256
from effnet_edge.errors import BundleError, UsageError
from effnet_edge.pictures.csv_files import csv_rows, header_of, picture_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Of a TensorFlow checkpoint, whose files have a common name that may stand for them.
_TF_INDEX = ".index"
_TF_PART = re.compile(r"\.(index|data-\d{5}-of-\d{5})$")
# Of a checkpoint, in which timm and transformers say more about the network.
_CONFIG = "config.json"
_HEADER_BYTES = 1 << 16

_Stamp: TypeAlias = tuple[str, int, int]


class NamedFiles:
    """Looks at each file and folder of this machine once, however many exports are told of it."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def digests(self, options: Sequence[str]) -> dict[str, str]:
        """By the options that name something: SHA-256 of what is there, in hexadecimal.

        Of a file and what is read with it that is the content; of pictures, in a folder or listed
        by a CSV file, the names, sizes and times.
        """
        named = [(option, path) for option in options for path in _paths(option)]
        return {option: self._digest(path) for option, path in named}

    def _digest(self, path: Path) -> str:
        if path not in self._known:
            seen = _stamps(path) if path.is_dir() else (*_contents(path), *_listed(path))
            self._known[path] = hashlib.sha256(json.dumps(sorted(seen)).encode()).hexdigest()
        return self._known[path]


def _paths(option: str) -> Iterator[Path]:
    """What a value names, also as --NAME=VALUE, as FILE#PART, or by a common name."""
    value = option.partition("=")[2] if option.startswith("-") else option
    for name in (value, value.rpartition("#")[0]):
        for path in (Path(name), Path(name + _TF_INDEX)):
            if name and _exists(path):
                yield path
                return


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (OSError, ValueError):  # a name that is too long, or has a null character
        return False
    return True


def _stamps(folder: Path) -> Iterator[_Stamp]:
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            yield from _stamp(path, path.relative_to(folder).as_posix())


def _listed(file: Path) -> Iterator[_Stamp]:
    """The pictures that the file lists, if it is a CSV file of pictures, whatever its name."""
    if not _may_have_header(file):
        return
    rows = csv_rows(file)
    try:
        _, header = header_of(file, rows, ())
        for _, path, row in picture_rows(file, rows, header):
            yield from _stamp(path, row[header.index("path")])
    except UsageError:  # the export itself tells what is wrong with it
        return


def _may_have_header(file: Path) -> bool:
    """Whether a column "path" may be named there; spares reading large weights as text."""
    with suppress(OSError), file.open("rb") as content:
        return b"path" in content.read(_HEADER_BYTES)
    return False


def _stamp(path: Path, name: str) -> Iterator[_Stamp]:
    """The name, and size in bytes and time in ns, of what is there."""
    with suppress(OSError):  # a link to nothing, or gone by now
        status = path.stat()
        yield name, 0 if stat.S_ISDIR(status.st_mode) else status.st_size, status.st_mtime_ns


def _contents(file: Path) -> Iterator[tuple[str, str]]:
    for path in (file, *_read_with(file)):
        try:
            yield path.name, sha256(path.resolve())
        except BundleError:  # the export itself tells that it cannot be read
            yield path.name, ""


def _read_with(file: Path) -> list[Path]:
    """Files beside one that belong to it: weights of a graph, parts or config of a checkpoint."""
    common = _TF_PART.sub("", file.name)
    starts = (f"{common}.", f"{common}_data")
    names = (_CONFIG, f"{file.stem}.bin" if file.suffix == ".xml" else _CONFIG)
    beside = next(os.walk(file.parent), ("", [], []))[2]
    return [
        file.with_name(name)
        for name in beside
        if name != file.name and (name.startswith(starts) or name in names)
    ]
