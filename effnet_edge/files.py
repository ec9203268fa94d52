"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from effnet_edge.appeared import note

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def write_whole(path: Path, content: str | bytes, *, is_cache: bool = False) -> None:
    r"""Put a file in place of whatever has that name; text is written as UTF-8.

    Of a file's name that is no UTF-8, Python makes surrogates, which are written as "\udcff".

    Args:
        is_cache: it is kept for another time, and no output that a person asked for.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    with replacing(path, is_cache=is_cache) as staging:
        staging.write_bytes(
            content.encode(errors="backslashreplace") if isinstance(content, str) else content
        )


@contextmanager
def replacing(path: Path, *, is_cache: bool = False) -> Iterator[Path]:
    """Yield the name of a hidden file beside `path`, of the same suffix, to be written.

    It takes the place of `path` at the end of the block, once it is on the disk. Where the block
    raises, also on Ctrl-C, it is removed.

    Args:
        is_cache: as of `write_whole`.

    Raises:
        OSError: it cannot be written or renamed.
    """
    staging = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield staging
        sync(staging)
        if not is_cache:
            note(staging, path)
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
