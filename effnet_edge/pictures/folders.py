"""Folders below a folder, and what matches a pattern, where links may lead in circles."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ANY_FOLDERS = "**"


def folders_below(
    root: str | os.PathLike[str], refuse: Callable[[OSError], None] | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Each folder from `root` on that is not hidden, with the names of the files in it.

    Links are followed, as data sets are often put together from them; each folder comes once.

    Args:
        refuse: is called with the error of a folder that cannot be read; it is left out if None.
    """
    seen = {os.path.realpath(root)}
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        visit = []
        for name in sorted(subfolders):
            target = os.path.realpath(Path(folder, name))
            if not name.startswith(".") and target not in seen:
                seen.add(target)
                visit.append(name)
        subfolders[:] = visit
        yield Path(folder), files


def matches(pattern: str | os.PathLike[str]) -> list[Path]:
    """What matches a pattern such as "in/**/*.jpg", sorted; "**" stands for folders, or for none.

    As Python's `glob`, which follows links in circles.
    """
    return sorted(set(map(Path, _matches(os.fspath(pattern)))))


def _matches(pattern: str) -> Iterator[str]:
    parts = Path(pattern).parts
    if _ANY_FOLDERS not in parts:
        yield from glob.glob(pattern)  # noqa: PTH207
        return
    at = parts.index(_ANY_FOLDERS)
    behind = parts[at + 1 :] or ("*",)
    for start in glob.glob(str(Path(*parts[:at]))):  # noqa: PTH207
        for folder, _ in folders_below(start):
            yield from _matches(str(Path(glob.escape(str(folder)), *behind)))
