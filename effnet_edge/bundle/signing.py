"""Signatures of bundles: Ed25519 over the bytes of `manifest.json`, which has every file's SHA-256.

The signature is raw (RFC 8032, 64 bytes) and detached, and keys are PEM files (PKCS#8, and
SubjectPublicKeyInfo), so that `openssl pkeyutl -verify -rawin` checks it as well.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet_edge.arguments import path_text
from effnet_edge.bundle.content import read_at_most
from effnet_edge.bundle.manifest import SIGNATURE_FILE
from effnet_edge.errors import BundleError, UsageError
from effnet_edge.extras import needed_for
from effnet_edge.text import plain

if TYPE_CHECKING:
    from types import ModuleType

SIGNATURE_BYTES = 64

_MOST_BYTES = 1 << 20
_MAKE_ONE = "openssl genpkey -algorithm ed25519 -out KEY.pem"


class SigningKey:
    """A private Ed25519 key.

    Args:
        path: a PEM file without a passphrase.

    Raises:
        UsageError: it cannot be read, is encrypted, or is no private Ed25519 key.
        BackendError: cryptography is not installed.
    """

    def __init__(self, path: Path) -> None:
        serialization, ed25519 = _cryptography()
        content = _read_key(path)
        try:
            key = serialization.load_pem_private_key(content, password=None)
        except TypeError as error:
            raise UsageError(
                f"{path}: is encrypted: decrypt it with openssl pkey -in {path} -out KEY.pem"
            ) from error
        except Exception as error:  # whatever the parser of foreign bytes raises
            raise UsageError(
                f"{path}: is no private key in PEM: make one with {_MAKE_ONE}"
            ) from error
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise UsageError(f"{path}: is a key of another kind: make one with {_MAKE_ONE}")
        self._key: Any = key

    def sign(self, manifest: bytes) -> bytes:
        """The 64 bytes of `SIGNATURE_FILE` for the bytes of a manifest."""
        signature: bytes = self._key.sign(manifest)
        return signature

    @property
    def fingerprint(self) -> str:
        """As `TrustedKey.fingerprint` of the public half."""
        return _fingerprint(self._key.public_key())


class TrustedKey:
    """A public Ed25519 key that bundles must be signed by.

    Args:
        key: a PEM file, or its content.

    Raises:
        UsageError: it cannot be read, or is no public Ed25519 key.
        BackendError: cryptography is not installed.
    """

    def __init__(self, key: str | os.PathLike[str] | bytes) -> None:
        serialization, ed25519 = _cryptography()
        self.name = "the trusted key" if isinstance(key, bytes) else path_text("trusted", key)
        content = key if isinstance(key, bytes) else _read_key(Path(self.name))
        if b"PRIVATE KEY-----" in content:
            raise UsageError(
                f"{self.name}: is a private key, which stays where bundles are signed: give its "
                "public half, which openssl pkey -in KEY.pem -pubout prints"
            )
        try:
            public = serialization.load_pem_public_key(content)
        except Exception as error:  # whatever the parser of foreign bytes raises
            raise UsageError(
                f"{self.name}: is no public key in PEM, as openssl pkey -in KEY.pem -pubout "
                "prints it"
            ) from error
        if not isinstance(public, ed25519.Ed25519PublicKey):
            raise UsageError(f"{self.name}: is a key of another kind: it must be an Ed25519 key")
        self._key: Any = public

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER form, hexadecimal: `openssl pkey -pubin -outform DER | sha256sum`."""
        return _fingerprint(self._key)

    def check(self, folder: Path, manifest: bytes) -> None:
        """Check that the bundle in `folder` has this key's signature of these bytes.

        Raises:
            BundleError: it has none, or another.
        """
        signature = read_signature(folder)
        if signature is None:
            raise BundleError(
                f"{folder}: is not signed, and {self.name} must have signed it: sign it with "
                "effnet-edge sign, or get one that is"
            )
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, manifest)
        except InvalidSignature as error:
            raise BundleError(
                f"{folder / SIGNATURE_FILE}: is not {self.name}'s signature of this manifest: "
                "another key signed it, or it was changed since: do not use this bundle"
            ) from error


def read_signature(folder: Path) -> bytes | None:
    """The signature of the bundle in `folder`; None where it is not signed.

    Raises:
        BundleError: it is no regular file of 64 bytes.
    """
    path = folder / SIGNATURE_FILE
    if not is_signed(folder):
        return None
    signature = read_at_most(path, _MOST_BYTES)
    if len(signature) != SIGNATURE_BYTES:
        raise BundleError(
            f"{path}: has {len(signature)} bytes, and an Ed25519 signature has {SIGNATURE_BYTES}: "
            "it is damaged"
        )
    return signature


def is_signed(folder: Path) -> bool:
    """Whether anything lies where a signature would."""
    return os.path.lexists(folder / SIGNATURE_FILE)


def _read_key(path: Path) -> bytes:
    file = Path(os.path.realpath(path))
    try:
        return read_at_most(file, _MOST_BYTES)
    except (BundleError, OSError) as error:
        place = plain(f"{file}: ")
        reason = str(error).removeprefix(place).partition(": copy")[0]
        raise UsageError(f"{path}: the key cannot be used: the file {reason}") from error


def _fingerprint(public: Any) -> str:
    serialization, _ = _cryptography()
    der: bytes = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def _cryptography() -> tuple[ModuleType, ModuleType]:
    with needed_for("a signature", "signing"):
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    return serialization, ed25519
