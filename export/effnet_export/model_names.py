"""What the models of a comparison are called, so that no two of them have one name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet_export.specs import checkpoint_of, is_network, is_recorded, is_served

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def tell_apart(opened: Mapping[str, Any]) -> None:
    """Name open models, by how each was given on the command line, so that no two share a name.

    A file or a bundle is called by the last part of its path, and by as many more as it takes.
    """
    ours = {spec: model for spec, model in opened.items() if _is_path(spec)}
    others = {model.name for spec, model in opened.items() if spec not in ours}
    for spec, name in shortest_names(ours, others).items():
        ours[spec].name = name


def shortest_names(paths: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """The shortest end of each path that no other path has, and that is no name already taken."""
    parts = {path: Path(os.path.abspath(path)).parts for path in paths}  # noqa: PTH100 - no links
    return {
        path: _shortest(own, set(parts.values()) - {own}, set(taken)) for path, own in parts.items()
    }


def _shortest(own: tuple[str, ...], others: set[tuple[str, ...]], taken: set[str]) -> str:
    for length in range(1, len(own)):
        end = own[-length:]
        name = "/".join(end)
        if name not in taken and not any(each[-length:] == end for each in others):
            return name
    return str(Path(*own))


def _is_path(spec: str) -> bool:
    if is_served(spec) or is_recorded(spec):
        return False
    return checkpoint_of(spec) is not None or not is_network(spec)
