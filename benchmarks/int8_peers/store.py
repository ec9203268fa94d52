"""Models and judgements on disk, so that nothing is quantized or judged twice.

A method's folder is named by a digest of everything that its model depends on. Failures are kept
beside, but not as final: the next run tries again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from int8_peers.cost import Cost, measured

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from int8_peers.method import Method
    from int8_peers.subject import Subject

MADE = "made.json"
FAILED = "failed.txt"


@dataclass(frozen=True)
class Made:
    """A model on disk.

    Attributes:
        file: the main file.
        cost: of making it.
    """

    file: Path
    cost: Cost

    @property
    def bytes(self) -> int:
        """Size of the model: an IR's .xml and .bin, an ONNX model's one file."""
        weights = self.file.with_suffix(".bin")
        parts = [self.file, weights] if self.file.suffix == ".xml" else [self.file]
        return sum(part.stat().st_size for part in parts)


class Store:
    """The models of one subject in one folder."""

    def __init__(self, folder: Path, subject: Subject) -> None:
        self._folder = folder
        self._inputs = {
            "weights": subject.source.weights.sha256,
            "calibration": subject.calibration.sha256,
        }
        self._subject = subject

    @property
    def folder(self) -> Path:
        """Where everything is."""
        return self._folder

    def name(self, method: Method) -> str:
        """The name of the method's folder: another one for every other model."""
        return self._of(method).name

    def made(self, method: Method) -> Made | None:
        """The method's model, if there is one."""
        record = self._of(method) / MADE
        if not record.is_file():
            return None
        fields = json.loads(record.read_text(encoding="utf-8"))
        return Made(record.parent / fields["file"], Cost(**fields["cost"]))

    def remember_failure(self, method: Method, error: Exception) -> None:
        """Keep the error's text, in one line with its type first."""
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        self._failure_file(method).write_text(text, encoding="utf-8")

    def failure(self, method: Method) -> str | None:
        """Why the last attempt at the model, or at running it, failed."""
        file = self._failure_file(method)
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def make(self, method: Method) -> Made:
        """The method's model, made now if there is none.

        Raises whatever the tool does.
        """
        found = self.made(method)
        if found:
            return found
        folder = self._of(method)
        staging = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        with measured() as own:
            product = method.make(self._subject, staging)
        made = Made(folder / product.file, product.earlier + own)
        record = {"file": product.file, "cost": asdict(made.cost), "group": method.group}
        text = json.dumps({**record, **self._key(method)}, indent=2)
        (staging / MADE).write_text(text, encoding="utf-8")
        staging.rename(folder)
        return made

    def remember(
        self, method: Method, name: str, compute: Callable[[Made], dict[str, Any]]
    ) -> dict[str, Any]:
        """What `compute` gives for the method's model, computed once and kept under `name`."""
        found = self.recall(method, name)
        if found is None:
            found = compute(self.make(method))
            self._note(method, name).write_text(json.dumps(found, indent=2), encoding="utf-8")
        return found

    def recall(self, method: Method, name: str) -> dict[str, Any] | None:
        """What was kept under `name`, if anything."""
        note = self._note(method, name)
        if not note.is_file():
            return None
        content: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        return content

    def _key(self, method: Method) -> dict[str, object]:
        return {
            "settings": dict(method.settings),
            "versions": {tool: version(tool) for tool in method.tools},
            "inputs": {**self._inputs, **method.inputs},
        }

    def _of(self, method: Method) -> Path:
        key = json.dumps([method.group, self._key(method)], sort_keys=True)
        name = re.sub(r"[^a-z0-9]+", "-", method.group.lower()).strip("-")
        return self._folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    def _note(self, method: Method, name: str) -> Path:
        return self._of(method) / f"{name}.json"

    def _failure_file(self, method: Method) -> Path:
        folder = self._of(method)
        return folder.with_name(f"{folder.name}.{FAILED}")


def version(tool: str) -> str:
    """The installed version of a distribution, or "not installed"."""
    try:
        return metadata.version(tool)
    except metadata.PackageNotFoundError:
        return "not installed"
