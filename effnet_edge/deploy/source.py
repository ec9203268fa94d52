"""A bundle with the very bytes that were signed and hashed, as it goes into a model repository."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.bundle import Bundle, Manifest
from effnet_edge.bundle.manifest import MANIFEST_FILE, SIGNATURE_FILE
from effnet_edge.bundle.reading import read_manifest_bytes
from effnet_edge.bundle.signing import read_signature
from effnet_edge.errors import BundleError

if TYPE_CHECKING:
    import os

    from effnet_edge.bundle.signing import TrustedKey


@dataclass(frozen=True)
class Source:
    """A bundle whose files were checked, the text of its manifest, and its signature if any."""

    bundle: Bundle
    manifest_text: bytes
    signature: bytes | None

    @classmethod
    def load(cls, path: str | os.PathLike[str], trusted: TrustedKey | None = None) -> Source:
        """Read and check a bundle.

        Raises:
            UsageError, BundleError: as of `Bundle.load`, or it carries several graphs.
        """
        bundle = Bundle.load(path, trusted=trusted).of_one_graph()
        folder = Path(path)
        text = read_manifest_bytes(folder)
        if Manifest.from_json(text, folder / MANIFEST_FILE) != bundle.manifest:
            raise BundleError(f"{folder}: has been replaced while it was read: run this again")
        return cls(bundle, text, read_signature(folder))

    @property
    def manifest(self) -> Manifest:
        """The manifest."""
        return self.bundle.manifest

    @property
    def name(self) -> str:
        """What the bundle's folder is called, also where it was given as "."."""
        return self.bundle.path.resolve().name

    @property
    def sha256(self) -> str:
        """The hash of the manifest, and so of the whole bundle; lower-case hexadecimal."""
        return hashlib.sha256(self.manifest_text).hexdigest()

    def write_proof(self, folder: Path) -> None:
        """Put the manifest and the signature into `folder`, byte by byte."""
        (folder / MANIFEST_FILE).write_bytes(self.manifest_text)
        if self.signature is not None:
            (folder / SIGNATURE_FILE).write_bytes(self.signature)

    def write(self, name: str, path: Path) -> None:
        """Copy the bundle's file `name` to `path`, hashed as it is read; raises BundleError."""
        path.write_bytes(self.bundle.read(name))

    def write_ir(self, folder: Path) -> None:
        """Copy an OpenVINO bundle's IR to `folder`, under the names that servers expect."""
        self.write(self.manifest.model, folder / "model.xml")
        self.write(self.manifest.model.removesuffix(".xml") + ".bin", folder / "model.bin")
