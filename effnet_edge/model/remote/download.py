"""Named weights fetched once into a cache, resumed where interrupted, verified before use."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from effnet_edge.errors import CheckpointError, first_line
from effnet_edge.files import write_whole

if TYPE_CHECKING:
    from effnet_edge.model.remote.registry import Download
    from effnet_edge.progress import Progress

CACHE_VARIABLE = "EFFNET_EDGE_CACHE"
_TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 1 << 18
_NOTHING_LEFT = 416  # "Range Not Satisfiable"


def cache_directory() -> Path:
    """`$EFFNET_EDGE_CACHE`, or the user's cache directory of this operating system."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_cache_dir("effnet-edge"))


def fetch(download: Download, on_progress: Progress | None = None) -> Path:
    """The file in the cache, downloaded if it is not there.

    It appears under its name only when all of it is there and its SHA-256 begins as the name says;
    the whole SHA-256 of the first one is kept beside it, and must be that of every later one.
    An interrupted download goes on where it stopped. Two processes may ask for the same file.

    Args:
        on_progress: called with the file's name, the bytes that are there, and all bytes.

    Raises:
        CheckpointError: no network, no such file on the server, or its content is another; the
            text has the URL. Or the cache cannot be written.
    """
    directory = cache_directory()
    path = directory / download.file_name
    try:
        if _is_right(path, download):
            with suppress(OSError):  # a cache that is only read
                _pin(path)
            return path
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}): remove it, or set {CACHE_VARIABLE} to "
            "another directory"
        ) from error
    part = path.with_name(f"{path.name}.part")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_right(path, download):  # another process was faster
                return path
            _fill(file, part, download, on_progress)
            part.replace(path)
            _pin(path)
    except OSError as error:
        raise CheckpointError(
            f"{directory}: the downloaded weights cannot be kept there ({error.strerror}): "
            f"set {CACHE_VARIABLE} to another directory"
        ) from error
    return path


def _fill(file: BinaryIO, part: Path, download: Download, on_progress: Progress | None) -> None:
    """Download what is missing; once more from the start if what was there before is no good."""
    resumed = file.tell() > 0
    _append(file, download, on_progress)
    if resumed and not _is_right(part, download):
        file.truncate(0)
        _append(file, download, on_progress)
    if not _is_right(part, download):
        file.truncate(0)
        raise CheckpointError(
            f"{download.url} is not the file that was published (its SHA-256 does not begin with "
            f"{download.sha256_prefix}): try again, or give another checkpoint with --weights FILE"
        )


def _append(file: BinaryIO, download: Download, on_progress: Progress | None) -> None:
    file.seek(0, os.SEEK_END)
    request = urllib.request.Request(download.url, headers={"User-Agent": "effnet-edge"})
    if file.tell():
        request.add_header("Range", f"bytes={file.tell()}-")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                file.truncate(0)
                file.seek(0)
            _copy(response, file, download, on_progress)
    except urllib.error.HTTPError as error:
        if error.code == _NOTHING_LEFT and file.tell():
            return
        raise _failed(download, f"the server says {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        reason = error.reason
        told = first_line(reason) if isinstance(reason, BaseException) else str(reason)
        raise _failed(download, told) from error
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _failed(download, first_line(error)) from error


def _copy(
    response: http.client.HTTPResponse,
    file: BinaryIO,
    download: Download,
    on_progress: Progress | None,
) -> None:
    total = file.tell() + (response.length or 0)
    while chunk := _read(response, download):
        file.write(chunk)
        if on_progress is not None:
            on_progress(f"downloading {download.file_name}", file.tell(), max(total, file.tell()))
    file.flush()
    if file.tell() < total:
        raise _failed(download, f"it stopped after {file.tell()} of {total} bytes")


def _read(response: http.client.HTTPResponse, download: Download) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _failed(download, first_line(error)) from error


def _failed(download: Download, reason: str) -> CheckpointError:
    return CheckpointError(
        f"the weights could not be downloaded ({reason}): run it again to go on, or fetch "
        f"{download.url} by hand and give it with --weights FILE"
    )


def _is_right(path: Path, download: Download) -> bool:
    """Whether the file is there and its SHA-256 begins as it should.

    Raises:
        CheckpointError: the whole SHA-256 is not that of the first download.
    """
    try:
        digest = _sha256(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not digest.startswith(download.sha256_prefix):
        return False
    pinned = _pin_of(path)
    if pinned.is_file() and pinned.read_text("ascii", "replace").strip() != digest:
        raise CheckpointError(
            f"{path} is not the file that was first downloaded (its SHA-256 is not the one in "
            f"{pinned.name}): remove both to download it again"
        )
    return True


def _pin(path: Path) -> None:
    """Keep the whole SHA-256 beside the file: its publisher tells eight digits alone."""
    if not _pin_of(path).exists():
        write_whole(_pin_of(path), f"{_sha256(path)}\n", is_cache=True)


def _pin_of(path: Path) -> Path:
    return path.with_name(f"{path.name.removesuffix('.part')}.sha256")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
