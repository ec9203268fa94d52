"""Writing a bundle, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge import nonfinite
from effnet_edge.appeared import note
from effnet_edge.bundle.content import check_recorded, sha256
from effnet_edge.bundle.manifest import MANIFEST_FILE, SIGNATURE_FILE, FileRecord, Manifest
from effnet_edge.bundle.places import OLD, PARTIAL, claim, exchange, sibling
from effnet_edge.bundle.reading import (
    Bundle,
    read_labels,
    read_manifest,
    read_manifest_bytes,
    refuse_foreign_files,
)
from effnet_edge.errors import BundleError, EffnetEdgeError, UsageError
from effnet_edge.files import sync, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from effnet_edge.bundle.signing import SigningKey
    from effnet_edge.labels import Label

LABELS_FILE = "labels.json"

_DISK_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
)


def checked_destination(destination: str | os.PathLike[str]) -> Path:
    """Give the whole path; raises UsageError for one that no bundle may take the place of.

    Only an empty directory, or a bundle with nothing else in it, may be replaced.
    """
    path = Path(os.path.abspath(destination))  # noqa: PTH100 - folds ".." too
    if Path.cwd().is_relative_to(path):
        raise UsageError(
            f"{path}: is the current directory, or one above it, and cannot be "
            "replaced: choose another place, or go elsewhere first"
        )
    if not os.path.lexists(path):
        return path
    try:
        replaceable = not path.is_symlink() and path.is_dir()
        if replaceable and any(path.iterdir()):
            refuse_foreign_files(path, read_manifest(path))
    except (BundleError, OSError):
        replaceable = False
    if not replaceable:
        raise UsageError(f"{path}: exists and is not a bundle: choose another -o")
    return path


class BundleWriter:
    """Writes a bundle whole or not at all.

    Files go into `staging`, a hidden sibling of the destination. `commit` seals them and renames
    the directory into place, or lets it change names with the bundle there; leaving the context
    removes the staging directory, and an error of ours that names it names the destination.

        with BundleWriter("b0-openvino-fp32") as writer:
            openvino.save_model(model, writer.staging / "model.xml")
            bundle = writer.commit(manifest, labels)

    A destination that holds a bundle is replaced; anything else but an empty directory is refused
    at once, before any work is done. Missing parent directories are made.
    """

    def __init__(self, destination: str | os.PathLike[str]) -> None:
        """Check the destination.

        Raises:
            UsageError: the destination exists and is not a bundle, or is the current directory.

        """
        self.destination = checked_destination(destination)
        self.staging = sibling(self.destination, PARTIAL)
        self._lock: int | None = None

    def __enter__(self) -> BundleWriter:
        """Make the staging directory.

        Raises:
            BundleError: the place cannot be written to, or somebody else is writing there.

        """
        try:
            self.destination.parent.mkdir(parents=True, exist_ok=True)
            self._lock = claim(self.destination, self.staging)
        except OSError as error:
            raise _disk_error(self.destination, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove what was not committed; a full or read-only disk becomes a `BundleError`."""
        shutil.rmtree(self.staging, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
        if isinstance(error, EffnetEdgeError):
            # A person knows the place, and not the folder beside it, which is gone by now.
            staging, place = str(self.staging), str(self.destination)
            error.args = tuple(str(each).replace(staging, place) for each in error.args)
        if isinstance(error, OSError) and self._is_ours(error):
            raise _disk_error(self.destination, error) from error

    def commit(
        self, manifest: Manifest, labels: Sequence[Label] | None, key: SigningKey | None = None
    ) -> Bundle:
        """Seal the staged files with their hashes and rename the bundle into place.

        `manifest.files` and `manifest.labels` are set here; `labels[i]` names class `i`. With `key`
        the bundle is signed.

        Raises:
            BundleError: the manifest is inconsistent, or the disk refuses.
            UsageError: the destination has meanwhile become something else.

        """
        try:
            if labels is not None:
                self.write_labels(labels)
            sealed = replace(
                manifest,
                labels=None if labels is None else LABELS_FILE,
                files=file_records(self.staging),
            )
            text = sealed.to_json()
            manifest_path = self.staging / MANIFEST_FILE
            checked = Manifest.from_json(text, manifest_path)
            manifest_path.write_text(text, encoding="utf-8")
            if key is not None:
                (self.staging / SIGNATURE_FILE).write_bytes(key.sign(text.encode()))
            checked_labels = read_labels(self.staging, checked)
            self._sync()
            checked_destination(self.destination)
            self._put_in_place()
        except OSError as error:
            raise _disk_error(self.destination, error) from error
        return Bundle(self.destination, checked, checked_labels)

    def write_labels(self, labels: Sequence[Label]) -> None:
        """Stage them, as `commit` does; for who needs all files before."""
        text = nonfinite.dumps([asdict(label) for label in labels], indent=1)
        (self.staging / LABELS_FILE).write_text(text + "\n", encoding="utf-8")

    def _sync(self) -> None:
        for file in self.staging.iterdir():
            sync(file)
        sync(self.staging)

    def _put_in_place(self) -> None:
        note(self.staging, self.destination)
        if (self.destination / MANIFEST_FILE).exists():
            self._swap()
        else:
            self.staging.rename(self.destination)
        sync(self.destination.parent)

    def _swap(self) -> None:
        if exchange(self.staging, self.destination):
            return
        aside = sibling(self.destination, OLD)
        try:
            self.destination.rename(aside)
            self.staging.rename(self.destination)
        finally:
            # Also on Ctrl-C between the two renames: one of the two bundles is always in place.
            if self.destination.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.rename(self.destination)

    def _is_ours(self, error: OSError) -> bool:
        """Whether the disk under the staging directory refused, and not some other file's."""
        if error.filename is None:
            return error.errno in _DISK_ERRNOS
        return Path(os.fsdecode(error.filename)).is_relative_to(self.staging)


def sign_bundle(folder: Path, key: SigningKey) -> None:
    """Check a bundle whole and sign it, in place of whatever signature it has.

    What is signed are the bytes of the manifest that the files were checked against.

    Raises:
        BundleError: it is not sound, is replaced meanwhile, or the disk refuses.
    """
    text = read_manifest_bytes(folder)
    manifest = Manifest.from_json(text, folder / MANIFEST_FILE)
    refuse_foreign_files(folder, manifest)
    for name, record in manifest.files.items():
        check_recorded(folder / name, record, hashed=True)
    read_labels(folder, manifest)
    try:
        write_whole(folder / SIGNATURE_FILE, key.sign(text))
        replaced = read_manifest_bytes(folder) != text
        if replaced:
            (folder / SIGNATURE_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise _disk_error(folder, error) from error
    if replaced:
        raise BundleError(f"{folder}: was replaced while it was signed: sign it again")


def file_records(folder: Path) -> dict[str, FileRecord]:
    """Hash every file of a folder, by name; raises BundleError for what is no regular file."""
    return {file.name: file_record(file) for file in sorted(folder.iterdir())}


def file_record(path: Path) -> FileRecord:
    """Hash a file; raises BundleError as of `file_records`."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise BundleError(f"{path}: a bundle holds regular files only: remove it")
    return FileRecord(sha256(path), path.stat().st_size)


def _disk_error(destination: Path, error: OSError) -> BundleError:
    where = f" ({os.fsdecode(error.filename)})" if error.filename is not None else ""
    return BundleError(f"{destination}: cannot write the bundle: {error.strerror or error}{where}")
