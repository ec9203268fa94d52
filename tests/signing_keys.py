"""Keys to sign bundles with in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

if TYPE_CHECKING:
    from pathlib import Path

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
PUBLIC = serialization.PublicFormat.SubjectPublicKeyInfo
PLAIN = serialization.NoEncryption()


def write_keys(folder: Path, name: str, private: Any = None) -> tuple[Path, Path]:
    """The private and the public half as PEM files; Ed25519 unless another is given."""
    private = private or ed25519.Ed25519PrivateKey.generate()
    files = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    files[0].write_bytes(private.private_bytes(PEM, PKCS8, PLAIN))
    files[1].write_bytes(private.public_key().public_bytes(PEM, PUBLIC))
    return files
