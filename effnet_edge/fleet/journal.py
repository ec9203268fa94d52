"""What is done already: a file for each finished job, so that a run goes on where one ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from effnet_edge import nonfinite
from effnet_edge.errors import UsageError, WriteError
from effnet_edge.files import probe_writable, write_whole

if TYPE_CHECKING:
    from pathlib import Path

_JOBS = "jobs"


class Journal:
    """The results of finished jobs in a folder, each written whole or not at all.

    A result is named by its job's key: that of another bundle, kind or question is another file.

    Raises:
        UsageError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._jobs = folder / _JOBS
        try:
            self._jobs.mkdir(parents=True, exist_ok=True)
            probe_writable(self._jobs / "probe")
        except OSError as error:
            raise UsageError(f"-o {folder}: cannot be written: {error.strerror}") from error

    def result(self, key: str) -> dict[str, Any] | None:
        """What came of a job; None where it is not done, or its file is damaged."""
        try:
            document = json.loads(self._path(key).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) and document.get("key") == key else None

    def add(self, key: str, result: dict[str, Any]) -> None:
        """Keep what came of a job.

        Raises:
            WriteError: it cannot be written, as on a full disk.
        """
        path = self._path(key)
        try:
            write_whole(path, nonfinite.dumps({**result, "key": key}, indent=1))
        except OSError as error:
            raise WriteError(f"{path}: cannot be written: {error.strerror}") from error

    def _path(self, key: str) -> Path:
        return self._jobs / f"{key}.json"
