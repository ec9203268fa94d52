"""Where bundles are put: exchanged in one step, locked against each other, and tidied up after.

A bundle is written in a hidden folder beside its place, `.NAME.RANDOM.partial`. Its writer holds a
lock on that folder, which the system lets go when the writer ends, however it ends: what nobody
holds is left over.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from effnet_edge.errors import BundleError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTIAL, OLD = "partial", "old"

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NOT_HERE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV, errno.EPERM})
_RANDOM_DIGITS = 8

# A writer holds the lock of the folder that bundles lie in for as long as it takes to look around.
_PATIENCE_SECONDS, _PAUSE_SECONDS = 30.0, 0.02


def sibling(place: Path, kind: str) -> Path:
    """A new hidden name beside `place`."""
    return place.with_name(f".{place.name}.{secrets.token_hex(_RANDOM_DIGITS // 2)}.{kind}")


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change names in one step; False where the system cannot.

    Raises:
        OSError: it can, and refuses.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_HERE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def claim(place: Path, folder: Path) -> int | None:
    """Make `folder`, a `sibling`, for a new bundle, and remove those that killed writers left.

    Returns:
        The descriptor that holds the folder's lock until it is closed; None where the file system
        has no locks.

    Raises:
        BundleError: somebody else is writing a bundle to this place.
        OSError: the disk refuses.
    """
    with _alone(place.parent):
        recover(place)
        for left in _siblings(place, PARTIAL):
            with _lock(left) as ours:
                if not ours:
                    raise BundleError(
                        f"{place}: is being written by another effnet-edge: wait for it, or choose "
                        "another place"
                    )
                shutil.rmtree(left, ignore_errors=True)
        for left in _siblings(place, OLD):
            shutil.rmtree(left, ignore_errors=True)
        folder.mkdir()
        return _held(folder, _PATIENCE_SECONDS)


def recover(place: Path) -> None:
    """Put back the bundle of a writer that was killed between two renames.

    Where nothing is there to be put back, or it cannot be, nothing happens.
    """
    if os.path.lexists(place):
        return
    writing = any(not _is_free(each) for each in _siblings(place, PARTIAL))
    left = _siblings(place, OLD)
    if left and not writing:
        with suppress(OSError):
            left[0].rename(place)


def _siblings(place: Path, kind: str) -> list[Path]:
    """Hidden folders that writers to this place have made, the newest first."""
    start, end = f".{place.name}.", f".{kind}"
    with suppress(OSError):
        found = [
            entry
            for entry in place.parent.iterdir()
            if entry.name.startswith(start)
            and entry.name.endswith(end)
            and len(entry.name) == len(start) + _RANDOM_DIGITS + len(end)
            and entry.is_dir()
            and not entry.is_symlink()
        ]
        return sorted(found, key=lambda entry: entry.stat().st_mtime, reverse=True)
    return []


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within, no other writer claims a place in this folder.

    Raises:
        BundleError: somebody holds the folder's lock for longer than a writer does.
    """
    try:
        descriptor = _held(folder, _PATIENCE_SECONDS)
    except BlockingIOError as error:
        raise BundleError(
            f"{folder}: another program has held this folder's lock for {_PATIENCE_SECONDS:g} s: "
            "wait for it to end (fuser tells which it is), or choose another place"
        ) from error
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock within, if nobody does; yields whether that is so."""
    try:
        descriptor = _held(folder)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _is_free(folder: Path) -> bool:
    with _lock(folder) as ours:
        return ours


def _held(folder: Path, patience: float = 0.0) -> int | None:
    """A descriptor that holds the folder's lock; None where there are no locks.

    Args:
        patience: how long to wait for it, in seconds.

    Raises:
        BlockingIOError: somebody holds it.
    """
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        _lock_within(descriptor, patience)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _lock_within(descriptor: int, seconds: float) -> None:
    """Take the lock; raises BlockingIOError where it is not free in time."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
