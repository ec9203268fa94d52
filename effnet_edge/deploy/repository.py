"""Writing into a model repository: models and versions appear whole, and nothing is replaced."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.appeared import note
from effnet_edge.bundle.manifest import MANIFEST_FILE, Manifest
from effnet_edge.bundle.places import PARTIAL, claim, sibling
from effnet_edge.bundle.reading import read_manifest_bytes
from effnet_edge.deploy.appearing import let_appear
from effnet_edge.deploy.clients import client_side
from effnet_edge.deploy.configurations import OVMS_CONFIG
from effnet_edge.deploy.source import Source
from effnet_edge.errors import BundleError, UsageError
from effnet_edge.files import sync, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from effnet_edge.bundle.signing import TrustedKey
    from effnet_edge.deploy.servers import Server

# What every server, file system and URL takes as it is.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
# Also where the file system does not tell capitals from small letters.
_FILES = frozenset({OVMS_CONFIG, MANIFEST_FILE})
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Deployed:
    """A version of a model in a repository.

    `path` is its folder, `backend` what will run it, in words, `manifest_sha256` the hash by which
    a client finds the bundle that it came from.
    """

    name: str
    version: int
    path: str
    backend: str
    manifest_sha256: str


def deploy(
    bundles: Sequence[str | os.PathLike[str]],
    repository: str | os.PathLike[str],
    server: Server,
    *,
    name: str | None = None,
    trusted: TrustedKey | None = None,
) -> list[Deployed]:
    """Write bundles into a model repository, which is made where there is none.

    A model that is there already gets a new version beside its old ones. Everything is looked at
    before anything is written, and each model or version appears in one step. Where one of several
    cannot appear, none does; the same call goes on where one was killed between them.

    Args:
        name: of the model, for one bundle; else models are called as the bundles' folders are.
        trusted: refuse bundles that this key has not signed.

    Raises:
        UsageError: a bundle that the server would not answer as it was proven; versions that cannot
            stand beside each other; a place that cannot be a repository.
        BundleError: a bundle is damaged, or somebody else is writing to the same place.
        OSError: the disk refuses.
    """
    folder = _place(repository)
    sources = [Source.load(bundle, trusted) for bundle in bundles]
    for source in sources:
        _check(source, server)
    names = _names(sources, name)
    server.check_repository(folder)
    with _made(folder.parent), _staging(folder) as staging:
        additions = [
            _addition(folder, name, source, server)
            for name, source in zip(names, sources, strict=True)
        ]
        models = [(each.name, each.source.manifest) for each in additions]
        beside = server.repository_files(folder, models)
        if not (beside or any(each.is_left_to_do for each in additions)):
            raise _is_there_already(additions[0].source, folder / additions[0].version_place)
        for each in additions:
            _stage(each, staging, server)
        _put_in_place(staging, folder, additions, beside)
    return [each.told(Path(repository), server) for each in additions]


@dataclass(frozen=True)
class _Addition:
    """A model or a version to be written.

    Attributes:
        files: texts of the model's folder that are to be written.
        is_there: the version is there, by a writer that may have been killed before it had done
            the rest.
    """

    name: str
    version: int
    source: Source
    files: dict[str, str]
    is_there: bool = False

    @property
    def is_left_to_do(self) -> bool:
        """Whether anything is to appear in the repository's models."""
        return not self.is_there or bool(self.files)

    @property
    def version_place(self) -> Path:
        """The version's folder, from the repository on."""
        return Path(self.name, str(self.version))

    @property
    def places(self) -> list[Path]:
        """What is to appear, from the repository on, in this order."""
        if self.version == 1 and not self.is_there:
            return [Path(self.name)]
        files = [Path(self.name, each) for each in self.files]
        return files if self.is_there else [self.version_place, *files]

    def told(self, repository: Path, server: Server) -> Deployed:
        path = repository / self.version_place
        backend = server.backend(self.source.manifest)
        return Deployed(self.name, self.version, str(path), backend, self.source.sha256)


def _place(repository: str | os.PathLike[str]) -> Path:
    folder = Path(os.path.realpath(repository))
    if not folder.name or (os.path.lexists(folder) and not folder.is_dir()):
        raise UsageError(f"{repository}: is no folder that can be a repository: choose another -o")
    if (folder / MANIFEST_FILE).exists():
        raise UsageError(f"{repository}: is a bundle itself: choose another -o")
    return folder


def _check(source: Source, server: Server) -> None:
    try:
        server.check(source.manifest)
    except UsageError as error:
        raise UsageError(f"{source.bundle.path}: {error}") from error


def _names(sources: Sequence[Source], name: str | None) -> list[str]:
    if name is not None and len(sources) > 1:
        raise UsageError("--name is for one bundle: deploy them one after the other")
    names = [source.name if name is None else name for source in sources]
    for each in names:
        if _NAME.fullmatch(each) is None:
            raise UsageError(
                f"{each!r} cannot be a model's name, which has up to 100 of A-Z a-z 0-9 _ . + - "
                "and begins with a letter, digit or _: give another with --name"
            )
        if each.lower() in _FILES:
            raise UsageError(
                f"{each!r} cannot be a model's name, as it is that of a file that tells whose a "
                "folder is: give another with --name"
            )
        if names.count(each) > 1:
            raise UsageError(
                f"two bundles are called {each}: deploy one after the other to have them as "
                "versions of one model, or give one another --name"
            )
    return names


def _addition(folder: Path, name: str, source: Source, server: Server) -> _Addition:
    """What is to be written for a bundle, checked against what is there."""
    model = folder / name
    if not os.path.lexists(model):
        return _Addition(name, 1, source, server.model_files(name, source))
    versions = _versions(model)
    newest = max(versions)
    there = [each for each in versions if _is_there(model / str(each), name, source, server)]
    if newest in there:
        files = server.missing_changes(model, source)
        return _Addition(name, newest, source, files, is_there=True)
    if there:
        raise _is_there_already(source, model / str(there[0]))
    return _Addition(name, newest + 1, source, server.changed_files(model, source))


def _versions(model: Path) -> list[int]:
    """The versions of a model that is there; raises UsageError for what is none."""
    names = [each.name for each in model.iterdir()] if model.is_dir() else []
    versions = [int(each) for each in names if _VERSION.fullmatch(each)]
    if model.is_symlink() or not versions:
        raise UsageError(f"{model}: exists and is no model: give another --name or -o")
    return versions


def _is_there(version: Path, name: str, source: Source, server: Server) -> bool:
    """Whether a version is the bundle itself.

    Raises:
        UsageError: it is another one, beside which the bundle cannot stand.
    """
    place = server.manifest_place(version)
    try:
        text = read_manifest_bytes(place)
        manifest = Manifest.from_json(text, place / MANIFEST_FILE)
    except BundleError as error:
        raise UsageError(
            f"{version}: was not written by effnet-edge deploy in the same way, so that no version "
            "can stand beside it: give the model another --name"
        ) from error
    if hashlib.sha256(text).hexdigest() == source.sha256:
        return True
    if server.shared(name, manifest) != server.shared(name, source.manifest):
        raise UsageError(
            f"{source.bundle.path}: takes or gives something else than {version}, and versions of "
            "a model share their configuration: give it another --name"
        )
    theirs, ours = client_side(manifest), client_side(source.manifest)
    others = [each for each in sorted({*theirs, *ours}) if theirs.get(each) != ours.get(each)]
    if others:
        raise UsageError(
            f"{source.bundle.path}: has other {', '.join(others)} than {version}, and clients "
            "prepare pictures and read outputs alike for all versions of a model: give it another "
            "--name"
        )
    return False


def _is_there_already(source: Source, version: Path) -> UsageError:
    return UsageError(f"{source.bundle.path}: is there already, as {version}")


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Have a folder; those that had to be made for it go again where the block raises."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for each in missing:
            with suppress(OSError):
                each.rmdir()
        raise


@contextmanager
def _staging(repository: Path) -> Iterator[Path]:
    """A hidden folder beside the repository, for one writer; what is left in it is removed.

    Not in the repository: a server that looks for new models takes every folder there for one.
    """
    staging = sibling(repository, PARTIAL)
    try:
        lock = claim(repository, staging)
    except OSError as error:
        raise _cannot_stage(repository, error) from error
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _stage(addition: _Addition, staging: Path, server: Server) -> None:
    model, version = staging / addition.name, staging / addition.version_place
    model.mkdir()
    if not addition.is_there:
        version.mkdir()
        server.write_version(addition.source, version)
    _write_all(model, addition.files)
    for each in (*model.rglob("*"), model):
        sync(each)


def _put_in_place(
    staging: Path, repository: Path, additions: Sequence[_Addition], beside: dict[str, str]
) -> None:
    """Let everything appear: a new repository at once, else a model or a version at once."""
    _write_all(staging, beside)
    sync(staging)
    if not repository.exists():
        note(staging, repository)
        staging.rename(repository)
        sync(repository.parent)
        return
    places = [place for each in additions for place in each.places]
    places += [Path(name) for name in beside]
    try:
        let_appear([(staging / each, repository / each) for each in places])
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise _cannot_stage(repository, error) from error
        raise


def _cannot_stage(repository: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{repository.parent}: is where models are put together before they appear in "
        f"{repository.name}, and cannot be used for that ({error.strerror}): choose another -o, "
        "and copy the models"
    )


def _write_all(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        write_whole(folder / name, text)
