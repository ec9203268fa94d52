"""What goes to a node and what comes back: a JSON document and files, as one run of bytes.

It is a ZIP archive whose members are stored, not compressed, so that it never unpacks to more than
came. Reading one executes nothing and writes nothing.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from effnet_edge import nonfinite
from effnet_edge.errors import BackendError, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

_DOCUMENT = "document.json"
_FILE = re.compile(r"[a-z]+/[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_OLDEST = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """A document of JSON values, and files named "folder/name"."""

    document: dict[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)

    def folder(self, name: str) -> dict[str, bytes]:
        """The files of one folder, by their name in it."""
        return {
            path.partition("/")[2]: content
            for path, content in self.files.items()
            if path.startswith(f"{name}/")
        }

    def pack(self) -> bytes:
        """One run of bytes, the same for the same content."""
        buffer = io.BytesIO()
        text = nonfinite.dumps(self.document, sort_keys=True)
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(zipfile.ZipInfo(_DOCUMENT, _OLDEST), text)
            for name, content in self.files.items():
                archive.writestr(zipfile.ZipInfo(name, _OLDEST), content)
        return buffer.getvalue()

    @classmethod
    def unpack(cls, content: bytes, sender: str) -> Package:
        """Read what `pack` made; bytes before it are passed over.

        Raises:
            BackendError: it is something else; the text names the sender.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                document, files = _read(archive)
        except Exception as error:  # whatever a reader of foreign bytes raises
            raise BackendError(
                f"{sender}: what it sent is no fleet package: {first_line(error)}"
            ) from error
        return cls(document, files)


def _read(archive: zipfile.ZipFile) -> tuple[dict[str, Any], dict[str, bytes]]:
    files = {}
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member.filename!r} is compressed")
        if member.filename != _DOCUMENT and not _FILE.fullmatch(member.filename):
            raise ValueError(f"{member.filename!r} is no name of a file in it")
        files[member.filename] = archive.read(member)
    document = json.loads(files.pop(_DOCUMENT))
    if not isinstance(document, dict):
        raise ValueError("its document is no JSON object")
    return document, files
