"""Which outputs have their final names, so that who ends a command early says what is there."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_Identity: TypeAlias = tuple[int, int]

_noted: ContextVar[dict[Path, _Identity] | None] = ContextVar("noted", default=None)


def note(made: Path, place: Path) -> None:
    """Take down that a file or folder, `made`, is about to be renamed to `place`.

    It is known by its number on the disk: an interruption may come before the rename, or just
    behind it, and the rename may be undone. Without `noting` nothing happens.
    """
    noted = _noted.get()
    if noted is not None:
        noted[place] = _identity(made)


@contextmanager
def noting() -> Iterator[Callable[[], list[Path]]]:
    """Yield a function that tells what has been renamed in this block, and is still in its place.

    What another thread renames is not seen.
    """
    noted: dict[Path, _Identity] = {}
    token = _noted.set(noted)
    try:
        yield lambda: [place for place, made in noted.items() if _is_there(place, made)]
    finally:
        _noted.reset(token)


def _identity(path: Path) -> _Identity:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _is_there(place: Path, made: _Identity) -> bool:
    try:
        return _identity(place) == made
    except OSError:
        return False
