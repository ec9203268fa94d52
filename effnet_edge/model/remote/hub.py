"""Checkpoints on the Hugging Face hub: one file of one commit, verified, in the hub's own cache.

`huggingface_hub` does the talking, with its own variables (HF_HOME, HF_TOKEN, HF_ENDPOINT,
HF_HUB_OFFLINE) and its cache, which it shares with timm and others. Addresses are written as in
https://huggingface.co/docs/huggingface_hub/package_reference/hf_uris, or as timm writes them.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import util
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from effnet_edge.errors import CheckpointError, EffnetEdgeError, UsageError, first_line
from effnet_edge.extras import install_hint
from effnet_edge.model.checkpoints.config_reading import CONFIG_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet_edge.progress import Progress

SYNTAX = "hf://OWNER/REPO[@REVISION][/FILE]"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""What is taken where an address names no file: the first that the repository has."""

_PREFIXES = ("hf://", "hf-hub:")
_ADDRESS = re.compile(
    r"(?:hf://(?:models/)?|hf-hub:)(?P<repository>[\w.-]+/[\w.-]+)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<file>.+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MODEL_CARD = "README.md"
_LIBRARY = "effnet-edge"
_SHA1_DIGITS, _SHA256_DIGITS = 40, 64
_SERVER_ERRORS = 500


@dataclass(frozen=True)
class HubAddress:
    """A place on the hub.

    Attributes:
        repository: "OWNER/REPO", of models.
        revision: a commit, tag or branch.
        file: its path in the repository; None for the first of `WEIGHT_FILES` that is there.
    """

    repository: str
    revision: str = "main"
    file: str | None = None

    def __str__(self) -> str:
        special = self.revision.startswith("refs/")
        revision = self.revision if special else quote(self.revision, safe="")
        return f"hf://{self.repository}@{revision}" + (f"/{self.file}" if self.file else "")

    @property
    def page(self) -> str:
        """The repository's page, for people."""
        from huggingface_hub import HfApi

        return f"{HfApi().endpoint}/{self.repository}"


@dataclass(frozen=True)
class HubCheckpoint:
    """A checkpoint in the cache.

    Attributes:
        path: of the file; a timm `config.json` of the same commit is beside it, if there is one.
        address: with the commit and the file: it names these bytes for ever.
        licence: as the model card says, in the hub's spelling ("apache-2.0"); None if it does not.
    """

    path: Path
    address: HubAddress
    licence: str | None


@dataclass(frozen=True)
class _File:
    """One that is in the cache.

    Attributes:
        commit: that it belongs to.
        digest: by which the hub keeps it: SHA-256 of large files, git's SHA-1 of small ones; on a
            file system without symbolic links, which has no such names, something else.
    """

    path: Path
    commit: str
    digest: str

    def is_intact(self) -> bool:
        """Whether the content has the digest."""
        if len(self.digest) == _SHA256_DIGITS:
            return hashlib.sha256(self.path.read_bytes()).hexdigest() == self.digest
        if len(self.digest) == _SHA1_DIGITS:
            data = self.path.read_bytes()
            blob = b"blob %d\0" % len(data) + data
            return hashlib.sha1(blob, usedforsecurity=False).hexdigest() == self.digest
        return True

    def forget(self) -> None:
        """Delete it, and what its name in the cache is a link to."""
        content = self.path.resolve()
        self.path.unlink()
        content.unlink(missing_ok=True)


class _UnreachableError(Exception):
    """The hub cannot be asked for a file that is not in the cache; the text says why."""


def is_hub_address(weights: str) -> bool:
    """Whether that is meant as a place on the hub."""
    return weights.startswith(_PREFIXES)


def parse_hub_address(weights: str) -> HubAddress:
    """From `hf://OWNER/REPO[@REVISION][/FILE]` or timm's `hf-hub:OWNER/REPO[@REVISION]`.

    A slash in the name of a branch is written %2F.

    Raises:
        UsageError: it is not written so.
    """
    match = _ADDRESS.fullmatch(weights)
    if match is None or ".." in (match["file"] or "").split("/"):
        raise UsageError(f"--weights {weights} is no place on the Hugging Face hub: {SYNTAX}")
    return HubAddress(match["repository"], unquote(match["revision"] or "main"), match["file"])


def fetch_from_hub(address: HubAddress, on_progress: Progress | None = None) -> HubCheckpoint:
    """The checkpoint, downloaded if it is not in the cache.

    A branch or tag is resolved to its commit first; `config.json` and the model card are of that
    commit too. What is in the cache is used without the network where the address has a commit,
    and where the hub cannot be reached. The content is compared with the hash by which the hub
    keeps the file: SHA-256 of large files, git's SHA-1 of small ones.

    Args:
        on_progress: called with what is done, the bytes so far, and all bytes.

    Raises:
        UsageError: the hub has no such repository, revision or file, or the library is missing.
        CheckpointError: access is refused, the hub cannot be reached, the content is not what the
            hub has on record, or the cache cannot be written.
    """
    if util.find_spec("huggingface_hub") is None:
        raise UsageError(
            f"--weights {address} needs huggingface_hub, which is not installed: "
            + install_hint("export")
        )
    with _quiet_library(), _errors_for_people(address):
        pinned, checkpoint = _checkpoint(address, on_progress)
        assert pinned.file is not None
        _obtain(pinned, str(PurePosixPath(pinned.file).with_name(CONFIG_NAME)))
        return HubCheckpoint(checkpoint.path, pinned, _licence(pinned))


def _checkpoint(address: HubAddress, on_progress: Progress | None) -> tuple[HubAddress, _File]:
    names = WEIGHT_FILES if address.file is None else (address.file,)
    for name in names:
        file = _obtain(address, name, on_progress)
        if file is not None:
            return replace(address, revision=file.commit, file=name), file
    raise UsageError(
        f"{address} has no file {' or '.join(names)}: see {address.page}/tree/{address.revision}, "
        f"and name the checkpoint in it ({SYNTAX})"
    )


def _obtain(address: HubAddress, name: str, on_progress: Progress | None = None) -> _File | None:
    """The file of that name at the address's revision; None where the repository has none."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError

    if _COMMIT.fullmatch(address.revision):
        is_known, file = _from_cache(address, name)
        if is_known and (file is None or file.is_intact()):
            return file
    url = hf_hub_url(address.repository, name, revision=address.revision)
    try:  # first without the library's retries: without a network they take half a minute
        metadata = get_hf_file_metadata(url, library_name=_LIBRARY)
    except RemoteEntryNotFoundError:
        _remember_absence(address, name)
        return None
    except Exception as error:  # the library lets its HTTP client's own through, of any class
        if isinstance(error, HfHubHTTPError) and error.response.status_code < _SERVER_ERRORS:
            raise
        return _without_hub(address, name, error)
    download = partial(_download, address, name, on_progress)
    commit, digest = metadata.commit_hash or "", metadata.etag or ""
    file = _File(download(), commit, digest)
    if not file.is_intact():
        file = _File(download(force_download=True), commit, digest)
    if not file.is_intact():
        file.forget()
        raise CheckpointError(
            f"{url} is not the file that the hub has on record (its hash is not {digest}): try "
            "again, or give another checkpoint with --weights FILE"
        )
    return file


def _download(
    address: HubAddress, name: str, on_progress: Progress | None, *, force_download: bool = False
) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(
        hf_hub_download(
            address.repository,
            name,
            revision=address.revision,
            library_name=_LIBRARY,
            force_download=force_download,
            tqdm_class=_reporter(f"downloading {address.repository}", on_progress),
        )
    )


def _remember_absence(address: HubAddress, name: str) -> None:
    """Let the cache keep in mind that the repository has no such file."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with suppress(RemoteEntryNotFoundError):
        _download(address, name, None)


def _without_hub(address: HubAddress, name: str, error: Exception) -> _File | None:
    """What the cache has, where the hub cannot be asked.

    Raises:
        CheckpointError: the file in the cache is damaged.
        _UnreachableError: the cache does not know of the file.
    """
    from huggingface_hub.errors import OfflineModeIsEnabled

    is_known, file = _from_cache(address, name)
    if file is not None and not file.is_intact():
        raise CheckpointError(
            f"{file.path} is damaged (its hash is not {file.digest}): delete that file, and run "
            "it again with a network"
        ) from error
    if is_known:
        return file
    is_off = isinstance(error, OfflineModeIsEnabled)
    reason = "HF_HUB_OFFLINE is set" if is_off else first_line(error)
    raise _UnreachableError(reason) from error


def _from_cache(address: HubAddress, name: str) -> tuple[bool, _File | None]:
    """Whether the cache knows of the file, and the file; None where the revision has none."""
    from huggingface_hub import constants, scan_cache_dir, try_to_load_from_cache

    found = try_to_load_from_cache(address.repository, name, revision=address.revision)
    if not isinstance(found, str):
        return found is not None, None
    path = Path(found)
    place = path.parent.resolve() / path.name
    cached = (
        _File(path, revision.commit_hash, file.blob_path.name)
        for repository in scan_cache_dir(constants.HF_HUB_CACHE).repos
        if (repository.repo_type, repository.repo_id) == ("model", address.repository)
        for revision in repository.revisions
        for file in revision.files
        if file.file_path == place
    )
    file = next(cached, None)
    return file is not None, file


def _licence(pinned: HubAddress) -> str | None:
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    try:
        card = _obtain(pinned, _MODEL_CARD)
        metadata = metadata_load(card.path) if card is not None else None
    except (_UnreachableError, YAMLError, ValueError):
        return None
    licence = (metadata or {}).get("license")
    return licence if isinstance(licence, str) and licence not in {"other", "unknown"} else None


def _reporter(label: str, on_progress: Progress | None) -> Any:
    """What the library takes for its own progress bar, telling `on_progress` instead."""
    from tqdm.auto import tqdm

    class Reporter(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, name: str | None = None, **options: Any) -> None:
            del name  # the library's own bars have one
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0
            if on_progress is not None:
                on_progress(label, int(self.n), int(max(self.total or 0, self.n)))
            return None

        def update_transfer(self, n: int) -> None:
            """Ignore the bytes on the wire: the library counts those of the file as well."""

        def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
            """Ignore the speed that the library would show."""

    return Reporter


@contextmanager
def _quiet_library() -> Iterator[None]:
    """Without what the library logs and warns of on its way; what comes of it, we tell."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _errors_for_people(address: HubAddress) -> Iterator[None]:
    """The library's errors as ours, one line each."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    log_in = "log in (hf auth login) or set HF_TOKEN"
    try:
        yield
    except EffnetEdgeError:
        raise
    except _UnreachableError as error:
        raise CheckpointError(
            f"the Hugging Face hub cannot be reached ({error}), and not all of {address} is in "
            f"the cache {constants.HF_HUB_CACHE}: run it once with a network, or fetch the file "
            f"and its {CONFIG_NAME} from {address.page} by hand and give it with --weights FILE"
        ) from error
    except GatedRepoError as error:
        raise CheckpointError(
            f"{address} is gated: ask for access on {address.page}, then {log_in}"
        ) from error
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"the hub has no repository {address.repository}, or it is private: check the name; "
            f"if it is private, {log_in}"
        ) from error
    except RevisionNotFoundError as error:
        raise UsageError(
            f"{address.repository} has no revision {address.revision}: see {address.page}/commits"
        ) from error
    except HfHubHTTPError as error:
        response = error.response
        told = f"{response.status_code} {response.reason_phrase}"
        remedy = log_in if response.status_code in {401, 403} else "try again later"
        raise CheckpointError(f"{address}: the hub says {told}: {remedy}") from error
    except OSError as error:
        if error.errno is None:  # the library's own, such as a download that ended too early
            raise _failed(address, error) from error
        remedy = "free some space" if error.errno == errno.ENOSPC else "check that it is writable"
        raise CheckpointError(
            f"{constants.HF_HUB_CACHE}: the downloaded weights cannot be kept there "
            f"({error.strerror}): {remedy}, or set HF_HOME to another directory"
        ) from error
    except Exception as error:  # its HTTP client's own, of any class
        raise _failed(address, error) from error


def _failed(address: HubAddress, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{address} could not be downloaded ({first_line(error)}): run it again, or fetch the "
        f"checkpoint and its {CONFIG_NAME} from {address.page} by hand and give it with "
        "--weights FILE"
    )
