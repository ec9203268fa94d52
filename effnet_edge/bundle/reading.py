"""Reading a bundle: a directory of model files, `labels.json` and `manifest.json`, all checked."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.arguments import path_text
from effnet_edge.bundle.content import (
    HeldFile,
    errors_told,
    hold_recorded,
    read_at_most,
    read_recorded,
)
from effnet_edge.bundle.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest
from effnet_edge.bundle.places import recover
from effnet_edge.bundle.schema import check_labels, parse_json
from effnet_edge.errors import BundleError, UsageError
from effnet_edge.labels import Label

if TYPE_CHECKING:
    from collections.abc import Mapping

    from effnet_edge.bundle.choice import Contender
    from effnet_edge.bundle.signing import TrustedKey

_MOST_MANIFEST_BYTES = 16 << 20


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest has been read and whose files have been checked.

    It keeps the files open that were checked, so that what takes their names later is not read.
    """

    path: Path
    manifest: Manifest
    labels: tuple[Label, ...] | None
    _held: Mapping[str, HeldFile | None] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """That of its folder, also where the path does not end in it, as "." does not."""
        return self.path.name if self.path.name not in ("", "..") else self.path.resolve().name

    @property
    def model_path(self) -> Path:
        """The file that the engine loads."""
        return self.path / self.manifest.model

    def read(self, name: str) -> bytes:
        """The content of the file of that name, hashed as it is read.

        Raises:
            FileNotFoundError: the manifest records none of that name.
            BundleError: it is no longer what it was exported as.

        """
        if name not in self.manifest.files:
            raise FileNotFoundError(errno.ENOENT, "not recorded in the manifest", name)
        record, held = self.manifest.files[name], self._held.get(name)
        return held.read(record) if held else read_recorded(self.path / name, record)

    def of_one_graph(self) -> Bundle:
        """The bundle itself; raises UsageError where it has several graphs and none was chosen."""
        choice = self.manifest.choice
        if choice is not None and choice.is_open:
            raise UsageError(
                f"{self.path}: carries {len(choice.contenders)} graphs ({choice.names}), of which "
                f"the device keeps the fastest: run effnet-edge build {self.path} there first"
            )
        return self

    def with_one_graph(self, contender: Contender) -> Bundle:
        """It as if it had been made with a contender's graph alone, and none of the others' files.

        The contender still has its graph.
        """
        own, choice = contender.graph, self.manifest.choice
        assert own is not None
        assert choice is not None
        foreign = {name for each in choice.graphs for name in each.files}
        manifest = replace(
            self.manifest,
            precision=contender.precision,
            model=own.model,
            calibration=own.calibration,
            parity=own.parity,
            choice=None,
            files={
                name: record
                for name, record in self.manifest.files.items()
                if name in own.files or name not in foreign
            },
        )
        return replace(self, manifest=manifest)

    def released(self) -> Bundle:
        """The same bundle without its open files."""
        return replace(self, _held={})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        verify: bool = True,
        trusted: TrustedKey | None = None,
    ) -> Bundle:
        """Read a bundle and check it; `verify=False` skips the hashing (sizes are still checked).

        With `trusted` its signature is checked before anything else of it is parsed.

        Raises:
            UsageError: nothing exists at `path`.
            BundleError: not a bundle, not signed by `trusted`, damaged, with files that are not
                its own, or too new.

        """
        folder = Path(path_text("the bundle", path))
        recover(folder)
        with errors_told(folder):
            there = folder.exists()
        if not there:
            raise UsageError(
                f"{folder}: no such bundle: check the path, or make one with effnet-edge export"
            )
        manifest = read_manifest(folder, trusted)
        refuse_foreign_files(folder, manifest)
        held = {
            name: hold_recorded(folder / name, record, hashed=verify)
            for name, record in manifest.files.items()
        }
        return cls(folder, manifest, read_labels(folder, manifest), held)


def read_manifest(folder: Path, trusted: TrustedKey | None = None) -> Manifest:
    """Parse and check the manifest in `folder`, which `trusted` must have signed.

    Raises:
        BundleError: there is no sound one, or it is not signed by that key.
    """
    text = read_manifest_bytes(folder)
    if trusted is not None:
        trusted.check(folder, text)
    return Manifest.from_json(text, folder / MANIFEST_FILE)


def read_manifest_bytes(folder: Path) -> bytes:
    """The manifest as it is signed; raises BundleError where there is none."""
    path = folder / MANIFEST_FILE
    with errors_told(path):
        regular = path.is_file() and not path.is_symlink()
    if not regular:
        raise BundleError(
            f"{folder}: is not a bundle: it has no {MANIFEST_FILE}; give a folder "
            "that effnet-edge export wrote"
        )
    return read_at_most(path, _MOST_MANIFEST_BYTES)


def read_labels(folder: Path, manifest: Manifest) -> tuple[Label, ...] | None:
    """Give a label for each class, or None for a bundle without any.

    Raises:
        BundleError: the file is unreadable, against the schema, or has another number of labels.

    """
    if manifest.labels is None:
        return None
    path = folder / manifest.labels
    document = parse_json(read_recorded(path, manifest.files[manifest.labels]), path)
    check_labels(document, path)
    if len(document) != manifest.output.classes:
        raise BundleError(
            f"{path}: has {len(document)} labels for a model of {manifest.output.classes} classes: "
            "export again with the labels of this model"
        )
    return tuple(Label(entry["name"], entry["wnid"]) for entry in document)


def refuse_foreign_files(folder: Path, manifest: Manifest) -> None:
    """Raise BundleError where `folder` holds anything else than the manifest's files.

    Beside them, only the manifest and its signature.
    """
    own = {MANIFEST_FILE, SIGNATURE_FILE, *manifest.files}
    try:
        foreign = sorted(entry.name for entry in os.scandir(folder) if entry.name not in own)
    except OSError as error:
        raise BundleError(f"{folder}: cannot be read: {error.strerror}") from error
    if foreign:
        raise BundleError(f"{folder}: {foreign[0]!r} is not part of this bundle: remove it")
