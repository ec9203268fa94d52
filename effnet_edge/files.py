"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    r"""Put a file in place of whatever has that name; text is written as UTF-8.

    Of a file's name that is no UTF-8, Python makes surrogates, which are written as "\udcff".

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    with replacing(path) as staging:
        staging.write_bytes(
            content.encode(errors="backslashreplace") if isinstance(content, str) else content
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a hidden file beside `path`, of the same suffix, to be written.

    It takes the place of `path` at the end of the block, once it is on the disk. Where the block
    raises, also on Ctrl-C, it is removed.

    Raises:
        OSError: it cannot be written or renamed.
    """
    staging = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield staging
        sync(staging)
        staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise
    sync(path.parent)


def probe_writable(path: Path) -> None:
    """Try whether a file of that name can be made, and leave nothing behind.

    Raises:
        OSError: its name is too long, or its folder is not there or cannot be written.
    """
    with suppress(FileNotFoundError):
        path.lstat()  # the system's own judgement of the name
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def sync(path: Path) -> None:
    """Wait until a file, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
