"""Reading a bundle: a directory of model files, `labels.json` and `manifest.json`, all checked."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from effnet_edge.bundle.manifest import MANIFEST_FILE, FileRecord, Manifest
from effnet_edge.bundle.schema import check_labels, parse_json
from effnet_edge.errors import BundleError, UsageError
from effnet_edge.labels import Label

_HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest has been read and whose files have been checked."""

    path: Path
    manifest: Manifest
    labels: tuple[Label, ...] | None

    @property
    def model_path(self) -> Path:
        """The file that the engine loads."""
        return self.path / self.manifest.model

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = True) -> Bundle:
        """Read a bundle and check it; `verify=False` skips the hashing (sizes are still checked).

        Raises:
            UsageError: nothing exists at `path`.
            BundleError: not a bundle, damaged, with files that are not its own, or too new.

        """
        folder = Path(path)
        if not folder.exists():
            raise UsageError(f"{folder}: no such bundle: check the path")
        manifest = read_manifest(folder)
        refuse_foreign_files(folder, manifest)
        for name, record in manifest.files.items():
            _check_file(folder / name, record, verify)
        return cls(folder, manifest, read_labels(folder, manifest))


def read_manifest(folder: Path) -> Manifest:
    """Parse and check the manifest in `folder`; raises BundleError where there is no sound one."""
    path = folder / MANIFEST_FILE
    if not path.is_file() or path.is_symlink():
        raise BundleError(f"{folder}: is not a bundle: it has no {MANIFEST_FILE}")
    return Manifest.from_json(_read_bytes(path), path)


def read_labels(folder: Path, manifest: Manifest) -> tuple[Label, ...] | None:
    """Give a label for each class, or None for a bundle without any.

    Raises:
        BundleError: the file is unreadable, against the schema, or has another number of labels.

    """
    if manifest.labels is None:
        return None
    path = folder / manifest.labels
    document = parse_json(_read_bytes(path), path)
    check_labels(document, path)
    if len(document) != manifest.output.classes:
        raise BundleError(
            f"{path}: has {len(document)} labels for a model of {manifest.output.classes} classes: "
            "export again with the labels of this model"
        )
    return tuple(Label(entry["name"], entry["wnid"]) for entry in document)


def refuse_foreign_files(folder: Path, manifest: Manifest) -> None:
    """Raise BundleError where `folder` holds anything that the manifest does not name."""
    own = {MANIFEST_FILE, *manifest.files}
    try:
        foreign = sorted(entry.name for entry in os.scandir(folder) if entry.name not in own)
    except OSError as error:
        raise BundleError(f"{folder}: cannot be read: {error.strerror}") from error
    if foreign:
        raise BundleError(f"{folder}: {foreign[0]!r} is not part of this bundle: remove it")


def sha256(path: Path) -> str:
    """Hash a file's content as lower-case hexadecimal; raises BundleError if it is unreadable."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error


def _check_file(path: Path, record: FileRecord, verify: bool) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise BundleError(f"{path}: is missing: copy or export the bundle again") from None
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path}: is not a regular file: copy the bundle without links")
    altered = status.st_size != record.bytes or (verify and sha256(path) != record.sha256)
    if altered:
        raise BundleError(
            f"{path}: is not the file that was exported (size or SHA-256 differs from the "
            "manifest's): copy or export the bundle again"
        )
