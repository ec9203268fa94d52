"""A file of what one model answers to pictures, to be read again instead of running the model.

It begins with a line of JSON that says whose answers they are. Behind it every picture has a record
of one size, which is appended whole:

    32 bytes                SHA-256 of the picture's pixels as the network takes them
    4 bytes for each output the answer, float32, least byte first
    4 bytes                 CRC-32 of the two before, unsigned, least byte first

A picture is known by its pixels, wherever it lies and whatever it is called. Each record is checked
when it is read, so what a killed run left behind is the answers that it had; nothing is unpickled.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from effnet_edge import nonfinite
from effnet_edge.errors import UsageError, WriteError, first_line
from effnet_edge.files import write_whole
from effnet_edge.outputs import OutputKind

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ANSWERS = ".answers"
"""What such a file's name ends in."""

FORMAT = "effnet-edge answers"
VERSION = 1
_MAX_HEADER_BYTES = 1 << 16
_MAX_OUTPUTS = 1 << 24
_DIGEST_BYTES = 32
_CHECKSUM = struct.Struct("<I")
_CHUNK_BYTES = 4 << 20
_AGAIN = "delete it, and record the answers again"


@dataclass(frozen=True)
class Answerer:
    """Whose answers they are.

    Attributes:
        name, execution_precision: as of `effnet_edge.parity.comparison.Classifier`.
        output: kind of the answers, as of `effnet_edge.outputs`.
        outputs: how many numbers an answer has.
        as_probabilities: whether the model ends in a softmax or a sigmoid, so that its answers are
            known up to a number that changes no probability.
        model_bytes: what the model takes; None where nobody knows.
        identity: JSON values that no other model has: its weights, its network, its pixels.
    """

    name: str
    execution_precision: str
    output: OutputKind
    outputs: int
    as_probabilities: bool
    model_bytes: int | None
    identity: dict[str, Any]

    @property
    def key(self) -> str:
        """Name the identity: SHA-256 of its JSON, in hexadecimal."""
        return identity_key(self.identity)


def identity_key(identity: dict[str, Any]) -> str:
    """SHA-256 of JSON values, whatever the order of their keys."""
    text = json.dumps(nonfinite.encode(identity), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def picture_key(pixels: NDArray[np.uint8]) -> bytes:
    """SHA-256 of a picture, uint8 (H, W, C), row by row."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()


def remove(path: Path) -> None:
    """Delete a file of answers, if it is there.

    Raises:
        UsageError: it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be deleted: {error.strerror}") from error


class AnswerFile:
    """Looks answers up by picture, and appends new ones; memory has a hundred bytes a picture.

    Raises:
        UsageError: it is not there, no file of answers, of a later version, or damaged; or, to be
            written, in use by another run.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        try:
            self._file = path.open("r+b" if writable else "rb", buffering=0)
        except OSError as error:
            raise UsageError(f"{path}: cannot be opened: {error.strerror}") from error
        try:
            if writable:
                self._lock()
            self.answerer, self._start = _read_header(self._file, path)
            self._size = _DIGEST_BYTES + 4 * self.answerer.outputs + _CHECKSUM.size
            self._places = self._found(writable=writable)
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def opened_for(cls, path: Path, answerer: Answerer) -> AnswerFile:
        """To be written, made if it is not there.

        Raises:
            UsageError: there are answers of another model, or as of the class.
        """
        if not path.exists():
            header = {"format": FORMAT, "version": VERSION, **vars(answerer)}
            text = json.dumps(nonfinite.encode(header), sort_keys=True)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, f"{text}\n")
            except OSError as error:
                raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
        found = cls(path, writable=True)
        if found.answerer.key != answerer.key or found.answerer.outputs != answerer.outputs:
            found.close()
            raise UsageError(f"{path} has answers of another model than {answerer.name}: {_AGAIN}")
        return found

    def __len__(self) -> int:
        """Count the pictures that have an answer."""
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        """Whether the picture with that key has an answer."""
        return key in self._places

    def get(self, key: bytes) -> NDArray[np.float32]:
        """The answer (outputs,) to a picture.

        Raises:
            KeyError: it has none.
            UsageError: the file was changed since it was opened.
        """
        place = self._places[key]
        record = os.pread(self._file.fileno(), self._size, self._start + place * self._size)
        if not _is_sound(record, self._size) or record[:_DIGEST_BYTES] != key:
            raise UsageError(f"{self.path} was changed while it was read: {_AGAIN}")
        values = np.frombuffer(record, "<f4", self.answerer.outputs, _DIGEST_BYTES)
        return values.astype(np.float32)

    def add(self, key: bytes, answer: NDArray[np.float32]) -> None:
        """Append the answer (outputs,) to a picture that has none yet.

        Raises:
            WriteError: it cannot be written, as on a full disk.
        """
        body = key + np.ascontiguousarray(answer, "<f4").tobytes()
        self._append(body + _CHECKSUM.pack(zlib.crc32(body)))
        self._places[key] = len(self._places)

    def close(self) -> None:
        """Let another run write it."""
        self._file.close()

    def _append(self, record: bytes) -> None:
        try:
            written = os.pwrite(
                self._file.fileno(), record, self._start + len(self._places) * self._size
            )
        except OSError as error:
            raise WriteError(f"{self.path}: cannot be written: {error.strerror}") from error
        if written != len(record):
            raise WriteError(f"{self.path}: cannot be written: the disk is full")

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"{self.path} is being written by another run: wait for it") from error

    def _found(self, *, writable: bool) -> dict[bytes, int]:
        """Where each picture's record is; of a file to be written, what is damaged is cut off."""
        places: dict[bytes, int] = {}
        self._file.seek(self._start)
        records = io.BufferedReader(self._file, max(_CHUNK_BYTES, self._size))
        try:
            while record := records.read(self._size):
                key = record[:_DIGEST_BYTES]
                if not _is_sound(record, self._size) or key in places:
                    if not writable:
                        raise UsageError(
                            f"{self.path} is damaged at answer {len(places) + 1}, or not whole: "
                            f"{_AGAIN}"
                        )
                    break
                places[key] = len(places)
        finally:
            records.detach()
        if writable:
            self._file.truncate(self._start + len(places) * self._size)
        return places


def _is_sound(record: bytes, size: int) -> bool:
    if len(record) != size:
        return False
    body, checksum = record[: -_CHECKSUM.size], record[-_CHECKSUM.size :]
    return checksum == _CHECKSUM.pack(zlib.crc32(body))


def _read_header(file: io.FileIO, path: Path) -> tuple[Answerer, int]:
    line, ended, _ = (file.read(_MAX_HEADER_BYTES) or b"").partition(b"\n")
    try:
        header = json.loads(line) if ended else None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no file of answers: {first_line(error)}") from error
    if not isinstance(header, dict) or header.pop("format", None) != FORMAT:
        raise UsageError(f"{path} is no file of answers: record some with parity --answers")
    version = header.pop("version", None)
    if version != VERSION:
        raise UsageError(
            f"{path} is of version {version!r} and {VERSION} is read here: {_AGAIN}, or upgrade"
        )
    return _answerer(header, path), len(line) + 1


def _answerer(header: dict[str, Any], path: Path) -> Answerer:
    texts = ("name", "execution_precision")
    others = ("output", "outputs", "as_probabilities", "model_bytes", "identity")
    size = header.get("model_bytes")
    if (
        header.keys() != {*texts, *others}
        or not all(isinstance(header[name], str) for name in texts)
        or header["output"] not in get_args(OutputKind)
        or not isinstance(header["identity"], dict)
        or not isinstance(header["as_probabilities"], bool)
        or type(header["outputs"]) is not int
        or not 1 <= header["outputs"] <= _MAX_OUTPUTS
        or not (size is None or type(size) is int)
    ):
        raise UsageError(f"{path}: its first line is not as one of answers is: {_AGAIN}")
    return Answerer(**header)
