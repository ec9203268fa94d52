"""The jobs of a plan: what each is known by, and what is sent to the node that does it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effnet_edge import __version__
from effnet_edge.bundle import Bundle
from effnet_edge.bundle.content import sha256
from effnet_edge.bundle.manifest import MANIFEST_FILE, SIGNATURE_FILE
from effnet_edge.errors import BundleError
from effnet_edge.fleet.checking import ANSWERS, BUNDLE, KEY_FILE, TRUSTED
from effnet_edge.fleet.package import Package

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from effnet_edge.fleet.named_files import NamedFiles
    from effnet_edge.fleet.plan import Plan
    from effnet_edge.fleet.plan_sweeps import Export
    from effnet_edge.fleet.question import Question

CHECK, EXPORT = "check", "export"


@dataclass(frozen=True)
class Job:
    """One thing to do on one node.

    Attributes:
        key: SHA-256 of all that it depends on, in hexadecimal.
        task: "check" or "export".
        bundle: its name.
        kind: of the node.
        document: what is asked; its values have no bytes.
        files: gives the files that go with it, when it starts.
    """

    key: str
    task: str
    bundle: str
    kind: str
    document: Mapping[str, Any]
    files: Callable[[], Mapping[str, bytes]]

    def order(self) -> Package:
        """What is sent; raises BundleError where a file cannot be read any more."""
        return Package(dict(self.document), self.files())


@dataclass(frozen=True)
class HashedBundle:
    """A bundle, and the SHA-256 of each of its files as they are here, by name."""

    bundle: Bundle
    digests: Mapping[str, str]

    @classmethod
    def at(cls, place: Path) -> HashedBundle:
        """Read and hash one, whatever its manifest says of its files.

        Raises:
            UsageError, BundleError: there is none, or a file of it cannot be read.
        """
        bundle = Bundle.load(place, verify=False).released()
        return cls(bundle, {name: sha256(place / name) for name in _file_names(bundle)})

    @property
    def manifest_sha256(self) -> str:
        """The SHA-256 by which nodes and servers know it."""
        return self.digests[MANIFEST_FILE]

    @property
    def is_as_exported(self) -> bool:
        """Whether all files are what the manifest says."""
        files = self.bundle.manifest.files.items()
        return all(self.digests[name] == record.sha256 for name, record in files)


def check_job(hashed: HashedBundle, kind: str, question: Question, plan: Plan) -> Job:
    """Check a bundle on a kind of device.

    It is known by the bundle's files as they are here, the kind, and what is asked: pictures,
    reference, limits, how it is timed, and the version of effnet-edge.

    Raises:
        BundleError: the trusted key cannot be read any more.
    """
    bundle = hashed.bundle
    asked: dict[str, Any] = {
        "task": CHECK,
        "bundle": bundle.path.name,
        "kind": kind,
        "manifest_sha256": hashed.manifest_sha256,
        "question": question.digest,
        "limits": dict(plan.limits),
        "batch_size": plan.pictures.batch_size,
        "bench": {"runs": plan.bench.runs, "batch": plan.bench.batch},
        "trusted": None if plan.trusted is None else sha256(plan.trusted.resolve()),
        "version": __version__,
    }
    # The manifest alone would not tell that another file is damaged, or the signature gone.
    key = _key({**asked, "files": dict(hashed.digests)})
    told = {"image_source": question.image_source, "skipped": list(question.skipped)}

    def files() -> dict[str, bytes]:
        content = {f"{BUNDLE}/{name}": each for name, each in _bundle_files(bundle).items()}
        content |= {f"{ANSWERS}/{name}": each for name, each in question.files.items()}
        if plan.trusted is not None:
            content[f"{TRUSTED}/{KEY_FILE}"] = plan.trusted.read_bytes()
        return content

    return Job(key, CHECK, bundle.path.name, kind, {**asked, **told, "key": key}, files)


def export_job(export: Export, kind: str, named: NamedFiles) -> Job:
    """Export one bundle of a sweep on a kind of node.

    It is known by all that the export is told, also in the files that its options name.
    """
    asked: dict[str, Any] = {
        "task": EXPORT,
        "bundle": export.name,
        "kind": kind,
        "arguments": list(export.arguments),
        "version": __version__,
    }
    if files := named.digests(export.options):
        asked["files"] = files
    key = _key(asked)
    return Job(key, EXPORT, export.name, kind, {**asked, "key": key}, dict)


def _key(asked: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _bundle_files(bundle: Bundle) -> dict[str, bytes]:
    """As they are here: whether they are what the manifest says is found out on the node."""
    try:
        return {name: (bundle.path / name).read_bytes() for name in _file_names(bundle)}
    except OSError as error:
        raise BundleError(
            f"{bundle.path}: cannot be read any more: {error.strerror or error}"
        ) from error


def _file_names(bundle: Bundle) -> list[str]:
    """All that is sent of it: its own files, and the signature where there is one."""
    names = [MANIFEST_FILE, *bundle.manifest.files]
    if (bundle.path / SIGNATURE_FILE).is_file():
        names.append(SIGNATURE_FILE)
    return names
