"""How what was put together appears in a repository: all of it, or none."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from effnet_edge.appeared import note
from effnet_edge.files import sync

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def let_appear(moves: Sequence[tuple[Path, Path]]) -> None:
    """Move each file or folder to its place, one after the other; only files are replaced.

    From the first move on there are renames alone, which need no room on the disk: neither do
    those that undo them where one fails, also on Ctrl-C.

    Raises:
        OSError: the disk refuses; what was there before is there again.
    """
    before = {place: _copy(place, made) for made, place in moves if place.is_file()}
    with ExitStack() as undo:
        for made, place in moves:
            undo.callback(_put_back, place, made, before.get(place))
            note(made, place)
            made.replace(place)
            sync(place.parent)
        undo.pop_all()


def _copy(place: Path, made: Path) -> Path:
    """A copy of a file that is there, beside the one that is to replace it."""
    copy = made.with_name(f".{made.name}.before")
    shutil.copy2(place, copy)
    return copy


def _put_back(place: Path, made: Path, before: Path | None) -> None:
    with suppress(OSError):
        if before is not None:
            before.replace(place)
        elif not os.path.lexists(made):
            place.replace(made)
