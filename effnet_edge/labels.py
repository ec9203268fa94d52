"""Class labels: the embedded ImageNet ones, or a file of the user's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

IMAGENET_CLASSES = 1000


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
    """Labels from a file: a name a line, or a JSON list of names (or of `{"name", "wnid"}`).

    Raises:
        UsageError: no such file, not UTF-8, or not as many labels as classes.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--labels {path}: cannot be read as UTF-8 text: {error}") from error
    labels = _parse(path, text)
    if len(labels) != classes:
        raise UsageError(
            f"--labels {path}: {len(labels)} labels for {classes} classes: "
            "give a label for each class, in the order of the logits"
        )
    return labels


def _parse(path: Path, text: str) -> list[Label]:
    if not text.lstrip().startswith("["):
        return [Label(line.strip(), None) for line in text.splitlines() if line.strip()]
    try:
        return [_label(entry) for entry in json.loads(text)]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f'--labels {path}: not a JSON list of names or of {{"name": …, "wnid": …}}: {error}'
        ) from error


def _label(entry: object) -> Label:
    if isinstance(entry, str):
        return Label(entry, None)
    if isinstance(entry, dict):
        return Label(str(entry["name"]), entry.get("wnid"))
    raise TypeError(f"{entry!r} is no label")


def default_labels(classes: int) -> list[Label] | None:
    """ImageNet's for a network of 1000 classes; none for another."""
    return imagenet_labels() if classes == IMAGENET_CLASSES else None


def class_indices(labels: Sequence[Label]) -> dict[str, int]:
    """Where each class stands in the logits, by its name and by its WordNet id."""
    by_name = {label.name: index for index, label in enumerate(labels)}
    by_wnid = {label.wnid: index for index, label in enumerate(labels) if label.wnid}
    return by_name | by_wnid
