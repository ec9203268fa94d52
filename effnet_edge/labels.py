"""Class labels: the embedded ImageNet ones, or a file of the user's."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import UsageError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

IMAGENET_CLASSES = 1000
LARGEST_FILE = 16 << 20
"""Bytes."""

# Those of files of text; `str.splitlines` has eight more, which may stand in a name.
_LINE_END = re.compile(r"\r\n|\r|\n")
_STRING = r"""('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")"""
_NUMBER_OR_STRING = rf"(\d{{1,9}}|{_STRING[1:-1]})"
_ITEM = re.compile(rf"\s*{_STRING}\s*(?:,|$)")
_SOMETHING = re.compile(r"\S")
_PAIR = re.compile(rf"\s*{_NUMBER_OR_STRING}\s*:\s*{_NUMBER_OR_STRING}\s*(?:,|$)")


@dataclass(frozen=True)
class Label:
    """A class for people: its name and, for ImageNet classes, its WordNet id."""

    name: str
    wnid: str | None


def imagenet_labels() -> list[Label]:
    """The 1000 ImageNet classes with their WordNet ids, in the order of the logits."""
    text = (resources.files("effnet_edge") / "data" / "imagenet.json").read_text("utf-8")
    return [Label(entry["name"], entry["wnid"]) for entry in json.loads(text)]


def read_labels(path: Path, classes: int) -> list[Label]:
    """Labels from a file: a name a line, or a JSON or Python list or dictionary.

    A list has names (or `{"name", "wnid"}`); a dictionary has names by index, or indices by name.

    Raises:
        UsageError: no such file, in an unknown encoding, or not as many labels as classes.
    """
    labels = _parse(path, _decoded(path))
    if len(labels) != classes:
        raise UsageError(
            f"--labels {path}: {len(labels)} labels for {classes} classes: "
            "give a label for each class, in the order of the logits"
        )
    return labels


def _decoded(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark at the beginning."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"--labels {path}: cannot be read: {error.strerror}") from error
    if len(data) > LARGEST_FILE:
        raise UsageError(f"--labels {path}: no label file has more than {LARGEST_FILE >> 20} MiB")
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "UTF-16" if is_utf16 else "UTF-8"
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(
            f"--labels {path}: line {line} cannot be read as {encoding} text: save the file "
            "as UTF-8 (Latin-1 or Windows-1252: iconv -f WINDOWS-1252 -t UTF-8)"
        ) from error


def _parse(path: Path, text: str) -> list[Label]:
    """A text that is wholly a list or dictionary is that; any other has a name a line."""
    stripped = text.strip()
    if not _is_structure(stripped):
        return [Label(line.strip(), None) for line in _LINE_END.split(text) if line.strip()]
    try:
        try:
            entries = json.loads(stripped, object_pairs_hook=_dictionary)
        except ValueError:
            entries = _python_names(stripped)
        return [_label(entry) for entry in _in_order(entries)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f'--labels {path}: not a JSON list of names or of {{"name": …, "wnid": …}}, nor a '
            f"dictionary of names by index: {first_line(error)}"
        ) from error


def _is_structure(text: str) -> bool:
    """Whether a list or dictionary begins there, and not a name in brackets."""
    beginning = re.match(r"[\[{]\s*(?P<next>.?)", text)
    if beginning is None:
        return False
    character = beginning["next"]
    if character.isdigit():
        return text.endswith(("]", "}"))
    return not character or character in "\"'[{]}"


def _python_names(text: str) -> object:
    """A list of strings, or a dictionary with a number on one side, as Python writes them.

    Raises:
        ValueError: anything else is in it.
    """
    is_dictionary = text.startswith("{")
    pattern = _PAIR if is_dictionary else _ITEM
    position, end = 1, len(text) - 1
    values: list[tuple[str | int, ...]] = []
    if text[end:] != ("}" if is_dictionary else "]"):
        raise ValueError("it has no end")
    while _SOMETHING.search(text, position, end):
        match = pattern.match(text, position, end)
        if match is None:
            shown = text[position : position + 20].strip().partition("\n")[0]
            raise ValueError(f"unexpected {shown!r}")
        values.append(tuple(_python_value(each) for each in match.groups()))
        position = match.end()
    return _dictionary(values) if is_dictionary else [each[0] for each in values]


def _dictionary(pairs: Iterable[tuple[Any, ...]]) -> dict[Any, Any]:
    """The pairs as one; raises TypeError where a key stands twice, of which one would be lost."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise TypeError(f"{str(key)[:40]!r} stands there twice")
        found[key] = value
    return found


def _python_value(text: str) -> str | int:
    if text.isdigit():
        return int(text)
    return re.sub(r"\\(['\"\\])", r"\1", text[1:-1])


def _in_order(entries: object) -> list[object]:
    """A list's entries, or a dictionary's by their indices, which must be 0, 1, 2 and so on.

    Raises:
        TypeError, ValueError: it is no list, or an index is missing.
    """
    if isinstance(entries, list):
        return entries
    if not isinstance(entries, dict):
        raise TypeError("no list and no dictionary")
    if entries and all(type(value) is int for value in entries.values()):
        pairs = [(index, name) for name, index in entries.items()]
    else:
        pairs = [(int(index), name) for index, name in entries.items()]
    pairs.sort(key=lambda pair: pair[0])
    if [index for index, _ in pairs] != list(range(len(pairs))):
        raise ValueError(f"the indices of its {len(pairs)} classes are not 0 to {len(pairs) - 1}")
    return [name for _, name in pairs]


def _label(entry: object) -> Label:
    if isinstance(entry, str):
        return Label(entry, None)
    if isinstance(entry, dict):
        wnid = entry.get("wnid")
        if isinstance(entry["name"], str) and isinstance(wnid, (str, type(None))):
            return Label(entry["name"], wnid)
    if isinstance(entry, list) and len(entry) == 2:  # Keras's imagenet_class_index.json
        wnid, name = entry
        if isinstance(wnid, str) and isinstance(name, str):
            return Label(name, wnid)
    raise TypeError(f"{str(entry)[:40]} is no label")


def default_labels(classes: int) -> list[Label] | None:
    """ImageNet's for a network of 1000 classes; none for another."""
    return imagenet_labels() if classes == IMAGENET_CLASSES else None


class ClassIndices(dict[str, int]):
    """Where each class stands in the logits, by its name and by its WordNet id.

    What names several classes, as "crane" does two of ImageNet's, is there and has no index.
    """

    def __init__(self, labels: Sequence[Label]) -> None:
        super().__init__()
        self._several: dict[str, list[int]] = {}
        for index, label in enumerate(labels):
            for name in {label.name, label.wnid or label.name}:
                self._several.setdefault(name, []).append(index)
                self[name] = index

    def __getitem__(self, name: str) -> int:
        """Look one up; raises UsageError for what names several classes."""
        indices = self._several.get(name, [])
        if len(indices) > 1:
            raise UsageError(
                f"{name!r} names the classes {', '.join(map(str, indices[:-1]))} and "
                f"{indices[-1]}: tell the class by its WordNet id, or in a CSV file by its "
                "class_index"
            )
        return super().__getitem__(name)


def index_of(name: str, classes: Mapping[str, int], place: str) -> int:
    """Look up the class index of what `place` names, as a row of a file or a folder.

    Raises:
        KeyError: it is none of the classes.
        UsageError: it names several.
    """
    try:
        return classes[name]
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from error
