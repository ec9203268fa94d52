"""The bytes of a bundle's files: of regular files alone, and only as the manifest has them."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import weakref
from contextlib import contextmanager
from io import FileIO
from typing import TYPE_CHECKING

from effnet_edge.errors import BundleError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from effnet_edge.bundle.manifest import FileRecord

_CHUNK_BYTES = 1 << 20
# Neither follows a link nor waits for the other end of a pipe.
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def read_at_most(path: Path, most_bytes: int) -> bytes:
    """The content of a file that no record tells the size of.

    Raises:
        BundleError: it is missing, no regular file, unreadable or too large.
    """
    with _opened(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise BundleError(f"{path}: is larger than {most_bytes >> 20} MiB, more than one ever is")
    return content


def read_recorded(path: Path, record: FileRecord) -> bytes:
    """The content of a file, once, hashed in the memory that is returned.

    Whoever works with it is sure to work with what the manifest names, whatever happens to the file
    meanwhile.

    Raises:
        BundleError: it is missing, no regular file, unreadable or another than the recorded one.
    """
    with _opened(path, record) as file:
        content = _whole(file, record.bytes)
    if len(content) != record.bytes or hashlib.sha256(content).hexdigest() != record.sha256:
        raise _altered(path)
    return content


class HeldFile:
    """A file that was checked, and stays the same one when another takes its name."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self._path, self._file = path, file
        # Closes the file in one step of C: an interrupt in a `__del__` would leave it open.
        self._closer = weakref.ref(self, file.__exit__)  # type: ignore[arg-type]

    def read(self, record: FileRecord) -> bytes:
        """Its content, hashed again in the memory that is returned; raises BundleError."""
        parts, size = [], 0
        while size < record.bytes:
            part = os.pread(self._file.fileno(), record.bytes - size, size)
            if not part:
                raise _altered(self._path)
            parts.append(part)
            size += len(part)
        content = parts[0] if len(parts) == 1 else b"".join(parts)
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise _altered(self._path)
        return content


def hold_recorded(path: Path, record: FileRecord, *, hashed: bool) -> HeldFile | None:
    """Check a file as `check_recorded` does and keep it open; None where the system cannot."""
    if not hasattr(os, "pread"):
        check_recorded(path, record, hashed=hashed)
        return None
    with errors_told(path):
        file = _open_regular(path, record)
        held = HeldFile(path, file)
        if hashed and _digest(file) != record.sha256:
            raise _altered(path)
        return held


def check_recorded(path: Path, record: FileRecord, *, hashed: bool) -> None:
    """Check a file's size and, where `hashed`, its content, a chunk at a time.

    Raises:
        BundleError: as of `read_recorded`.
    """
    with _opened(path, record) as file:
        if hashed and _digest(file) != record.sha256:
            raise _altered(path)


def sha256(path: Path) -> str:
    """Hash a file's content as lower-case hexadecimal; raises BundleError if it is unreadable."""
    with _opened(path) as file:
        return _digest(file)


@contextmanager
def _opened(path: Path, record: FileRecord | None = None) -> Iterator[FileIO]:
    with errors_told(path), _open_regular(path, record) as file:
        yield file


def _open_regular(path: Path, record: FileRecord | None) -> FileIO:
    file = FileIO(path, opener=_open_at_once)
    try:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _irregular(path)
        if record is not None and status.st_size != record.bytes:
            raise _altered(path)
    except BundleError:
        file.close()
        raise
    return file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | _FLAGS)


@contextmanager
def errors_told(path: Path) -> Iterator[None]:
    """Raise what the system says of a file within as a BundleError that names it.

    No file can have a name that is too long: a UsageError, as for a bundle that does not exist.
    """
    try:
        yield
    except FileNotFoundError:
        raise BundleError(f"{path}: is missing: copy or export the bundle again") from None
    except OSError as error:
        # What is opened with O_NOFOLLOW, and a socket.
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _irregular(path) from error
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{path}: no file can have so long a name: check the path") from error
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error


def _whole(file: FileIO, size: int) -> bytes:
    """One read gives at most 2 GiB on Linux."""
    first = file.read(size)
    if len(first) == size:
        return first
    parts = [first]
    while parts[-1]:
        parts.append(file.read(_CHUNK_BYTES))
    return b"".join(parts)


def _digest(file: FileIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _irregular(path: Path) -> BundleError:
    return BundleError(f"{path}: is not a regular file: copy the bundle without links")


def _altered(path: Path) -> BundleError:
    return BundleError(
        f"{path}: is not the file that was exported (size or SHA-256 differs from the "
        "manifest's): copy or export the bundle again"
    )
