"""Whether the files that an export's options name are still those of an earlier run."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.bundle.content import sha256
from effnet_edge.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Of a TensorFlow checkpoint, whose files have a common name that may stand for them.
_TF_INDEX = ".index"
_TF_PART = re.compile(r"\.(index|data-\d{5}-of-\d{5})$")
# Of a checkpoint, in which timm and transformers say more about the network.
_CONFIG = "config.json"


class NamedFiles:
    """Looks at each file and folder of this machine once, however many exports are told of it."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def digests(self, options: Sequence[str]) -> dict[str, str]:
        """By the options that name something: SHA-256 of what is there, in hexadecimal.

        Of a file and what is read with it that is the content; of a folder, which has pictures, the
        names, sizes and times.
        """
        named = [(option, path) for option in options for path in _paths(option)]
        return {option: self._digest(path) for option, path in named}

    def _digest(self, path: Path) -> str:
        if path not in self._known:
            seen = _stamps(path) if path.is_dir() else _contents(path)
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


def _stamps(folder: Path) -> Iterator[tuple[str, int, int]]:
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            try:
                status = path.stat()
            except OSError:  # a link to nothing, or gone by now
                continue
            size = 0 if name in folders else status.st_size
            yield path.relative_to(folder).as_posix(), size, status.st_mtime_ns


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
