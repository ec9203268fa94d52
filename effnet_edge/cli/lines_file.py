"""A file of one JSON value a line, written as the work goes on and continued after a kill.

Its first line says which work it is of. Every other one is of one picture, which it names.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from effnet_edge import nonfinite
from effnet_edge.cli.ending import CtrlC
from effnet_edge.errors import UsageError, WriteError

if TYPE_CHECKING:
    from pathlib import Path

PICTURE, ERROR = "image", "error"
_MODEL_NAME = "model"


class LinesFile:
    """Has a line for each picture that is done; each is on the file before the next is asked for.

    Args:
        work: the first line. To be continued, a file must have been written with the same one, but
            for the name under "model".
        resume: go on with the file, if it is there.

    Attributes:
        done: names of the pictures that have a line.
        failed: how many of these lines tell an error.

    Raises:
        UsageError: it cannot be opened, is in use, is there although it is not to be continued, or
            is of other work, or no such file at all.
        WriteError: as of `write`.
    """

    def __init__(self, path: Path, work: dict[str, Any], *, resume: bool) -> None:
        self.path = path
        self.done: set[str] = set()
        self.failed = 0
        self._file = _opened(path)
        try:
            size = os.fstat(self._file.fileno()).st_size
            if size and not resume:
                raise UsageError(
                    f"{path} is there already: give --resume to go on with it, or another name"
                )
            header = f"{_text(work)}\n".encode()
            self._size = self._read(header, work) if size else 0
            self._file.truncate(self._size)
            if not self._size:
                self._append(header)
        except BaseException:
            self._file.close()
            raise

    def write(self, line: dict[str, Any]) -> None:
        """Append the line of a picture; Ctrl-C leaves `done` and `failed` as the file is.

        Raises:
            WriteError: it cannot be written, as on a full disk.
        """
        content = f"{_text(line)}\n".encode()
        with CtrlC.held():
            self._append(content)
            self.done.add(line[PICTURE])
            self.failed += ERROR in line

    def close(self) -> None:
        """Let another run write it."""
        self._file.close()

    def __enter__(self) -> LinesFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, content: bytes) -> None:
        try:
            written = os.pwrite(self._file.fileno(), content, self._size)
        except OSError as error:
            raise WriteError(f"{self.path}: cannot be written: {error.strerror}") from error
        if written != len(content):
            raise WriteError(f"{self.path}: cannot be written: the disk is full")
        self._size += written

    def _read(self, header: bytes, work: dict[str, Any]) -> int:
        """Take in the lines that are whole; how many bytes they are."""
        lines = io.BufferedReader(self._file)
        try:
            first = lines.readline()
            if not first.endswith(b"\n"):
                if not header.startswith(first):
                    raise self._foreign(1)
                return 0  # the first line itself was cut off
            self._check(_value(first), work)
            size = len(first)
            for number, line in enumerate(lines, start=2):
                if not line.endswith(b"\n"):
                    break  # a kill came in its midst
                self._take(_value(line), number)
                size += len(line)
            return size
        finally:
            lines.detach()

    def _check(self, found: Any, work: dict[str, Any]) -> None:
        if not isinstance(found, dict) or found.keys() != work.keys():
            raise self._foreign(1)
        for key, wanted in json.loads(_text(work)).items():
            if key != _MODEL_NAME and found[key] != wanted:
                raise UsageError(
                    f"{self.path} was written with another {key} ({_short(found[key])}, here "
                    f"{_short(wanted)}): give another name, or the same bundle and options"
                )

    def _take(self, line: Any, number: int) -> None:
        name = line.get(PICTURE) if isinstance(line, dict) else None
        if not isinstance(name, str) or name in self.done:
            raise self._foreign(number)
        self.done.add(name)
        self.failed += ERROR in line

    def _foreign(self, number: int) -> UsageError:
        return UsageError(
            f"{self.path}, line {number}: is not what effnet-edge wrote: give another name"
        )


def _opened(path: Path) -> io.FileIO:
    """For reading and writing, made if it is not there, and locked."""
    try:
        file = io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666), "r+")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UsageError(f"{path} is no file: give the name of one")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise UsageError(f"{path} is being written by another run: wait for it") from error
    except BaseException:
        file.close()
        raise
    return file


def _short(value: object) -> str:
    """A value, of which hashes need not be told whole."""
    told = repr(value)
    return told if len(told) <= 20 else f"{told[:16]}…"


def _text(value: dict[str, Any]) -> str:
    return nonfinite.dumps(value, indent=None)


def _value(line: bytes) -> Any:
    """None for what is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
