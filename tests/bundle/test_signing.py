"""Bundles are signed and, where a key is trusted, nothing unsigned is used."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa, x25519
from signing_keys import PEM, PKCS8, write_keys
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.bundle import Bundle, BundleWriter
from effnet_edge.bundle.manifest import Manifest
from effnet_edge.bundle.reading import read_manifest
from effnet_edge.bundle.signing import SigningKey, TrustedKey
from effnet_edge.bundle.writing import sign_bundle
from effnet_edge.cli.main import cli
from effnet_edge.errors import BackendError, BundleError, UsageError
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "ours")


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    path = write_bundle(tmp_path / "b", "onnxruntime", tiny_model())
    sign_bundle(path, SigningKey(keys[0]))
    return path


def run(*arguments: object) -> tuple[int, str]:
    told = CliRunner().invoke(cli, [str(each) for each in arguments])
    ended = told.exception is None or isinstance(told.exception, SystemExit)
    return told.exit_code, told.output + ("" if ended else str(told.exception))


def test_a_signed_bundle_runs_and_is_told_so(signed: Path, keys: tuple[Path, Path]) -> None:
    for trusted in (keys[1], str(keys[1]), keys[1].read_bytes(), None):
        EngineRunner.load(signed, trusted=trusted).close()
    code, told = run("verify", signed, "--trusted", keys[1], "--json")
    assert code == 0
    assert TrustedKey(keys[1]).fingerprint in json.loads(told)["checks"]["signature"]
    assert SigningKey(keys[0]).fingerprint == TrustedKey(keys[1]).fingerprint


def test_without_a_trusted_key_a_signature_is_said_not_to_be_checked(
    signed: Path, tmp_path: Path
) -> None:
    unsigned = write_bundle(tmp_path / "u", "onnxruntime", tiny_model())
    for path, expected in ((signed, "not checked"), (unsigned, "none")):
        code, told = run("verify", path, "--json")
        assert code == 0
        assert json.loads(told)["checks"]["signature"].startswith(expected)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_makes_the_keys_and_agrees_about_signatures(tmp_path: Path) -> None:
    def openssl(*arguments: object) -> subprocess.CompletedProcess[bytes]:
        command = ["openssl", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, check=False, capture_output=True)

    def agrees() -> bool:
        manifest, signature = path / "manifest.json", path / "manifest.sig"
        return not openssl(
            *("pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "public.pem"),
            *("-in", manifest, "-sigfile", signature),
        ).returncode

    openssl("genpkey", "-algorithm", "ed25519", "-out", "key.pem")
    openssl("pkey", "-in", "key.pem", "-pubout", "-out", "public.pem")
    path = write_bundle(tmp_path / "b", "onnxruntime", tiny_model())
    sign_bundle(path, SigningKey(tmp_path / "key.pem"))
    assert agrees()
    (path / "manifest.json").write_bytes((path / "manifest.json").read_bytes() + b" ")
    assert not agrees()

    signing = ("pkeyutl", "-sign", "-rawin", "-inkey", "key.pem", "-in", path / "manifest.json")
    assert openssl(*signing, "-out", path / "manifest.sig").returncode == 0
    EngineRunner.load(path, trusted=tmp_path / "public.pem").close()


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def link(path: Path) -> None:
    path.rename(path.parent.with_name("elsewhere"))
    path.symlink_to(path.parent.with_name("elsewhere"))


def swap_file(path: Path) -> None:
    """Another model, with a manifest that records it."""
    flip(path / "model.onnx")
    manifest = read_manifest(path)
    with BundleWriter(path.with_name("other")) as writer:
        for name in manifest.files:
            shutil.copy(path / name, writer.staging / name)
        writer.commit(manifest, None)
    shutil.copy(path.with_name("other") / "manifest.json", path / "manifest.json")


def from_another_bundle(path: Path) -> None:
    """A signature of the same key, of another bundle."""
    key = SigningKey(path.with_name("ours.pem"))
    other = write_bundle(path.with_name("other"), "onnxruntime", tiny_model(), None)
    sign_bundle(other, key)
    shutil.copy(other / "manifest.sig", path / "manifest.sig")


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no signature": (lambda path: (path / "manifest.sig").unlink(), "is not signed"),
    "truncated signature": (lambda path: truncate(path / "manifest.sig"), "has 63 bytes"),
    "longer signature": (lambda path: append(path / "manifest.sig"), "has 65 bytes"),
    "flipped signature": (lambda path: flip(path / "manifest.sig"), "is not .*'s signature"),
    "linked signature": (lambda path: link(path / "manifest.sig"), "is not a regular file"),
    "signature of another bundle": (from_another_bundle, "is not .*'s signature"),
    "a space more in the manifest": (lambda path: append(path / "manifest.json"), "is not .*'s"),
    "swapped file and manifest": (swap_file, "is not .*'s signature"),
    "replaced file": (lambda path: flip(path / "model.onnx"), "is not the file that was exported"),
    "extra file": (lambda path: (path / "notes.txt").touch(), "'notes.txt' is not part"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_changed_is_refused_and_told(
    fault: str, signed: Path, keys: tuple[Path, Path]
) -> None:
    change, told = FAULTS[fault]
    change(signed)
    with pytest.raises(BundleError, match=told) as refused:
        EngineRunner.load(signed, trusted=keys[1])
    assert "\n" not in str(refused.value)
    code, output = run("verify", signed, "--trusted", keys[1], "--json")
    assert code == 1
    assert json.loads(output)["sound"] is False


def test_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    _, other = write_keys(tmp_path, "other")
    with pytest.raises(BundleError, match="another key signed it, or it was changed"):
        EngineRunner.load(signed, trusted=other)
    for command in (("predict", signed, "x.jpg"), ("bench", signed), ("build", signed)):
        code, told = run(*command, "--trusted", other)
        assert code == 1
        assert "another key signed it" in told


def test_nothing_is_parsed_before_the_signature_is_checked(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(*_: object) -> None:
        raise AssertionError("an unsigned manifest was parsed")

    append(signed / "manifest.json")
    monkeypatch.setattr(Manifest, "from_json", parsed)
    with pytest.raises(BundleError, match="is not .*'s signature"):
        EngineRunner.load(signed, trusted=keys[1])
    assert run("verify", signed, "--trusted", keys[1])[0] == 1


def test_what_is_parsed_are_the_bytes_whose_signature_was_checked(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_bundle(tmp_path / "other", "onnxruntime", tiny_model(), variant="b1")
    check = TrustedKey.check

    def swap_then(key: TrustedKey, folder: Path, manifest: bytes) -> None:
        check(key, folder, manifest)
        (other / "manifest.json").replace(folder / "manifest.json")

    monkeypatch.setattr(TrustedKey, "check", swap_then)
    assert Bundle.load(signed, trusted=TrustedKey(keys[1])).manifest.variant == "b0"


def test_signing_again_replaces_the_signature(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = write_keys(tmp_path, "second")
    code, told = run("sign", signed, "--key", private, "--json")
    assert (code, json.loads(told)["replaced"]) == (0, True)
    assert json.loads(told)["key"] == TrustedKey(public).fingerprint
    EngineRunner.load(signed, trusted=public).close()
    with pytest.raises(BundleError, match="another key"):
        EngineRunner.load(signed, trusted=keys[1])
    assert "in place of another" in run("sign", signed, "--key", keys[0])[1]


@pytest.mark.parametrize("fault", ["replaced file", "extra file"])
def test_what_is_not_sound_is_not_signed(fault: str, signed: Path, keys: tuple[Path, Path]) -> None:
    (signed / "manifest.sig").unlink()
    FAULTS[fault][0](signed)
    code, told = run("sign", signed, "--key", keys[0])
    assert code == 1
    assert FAULTS[fault][1] in told
    assert not (signed / "manifest.sig").exists()


def test_labels_of_another_network_are_not_signed(signed: Path, keys: tuple[Path, Path]) -> None:
    """The manifest records the very file, and no loader takes it."""
    (signed / "manifest.sig").unlink()
    labels, manifest = b"[]\n", json.loads((signed / "manifest.json").read_text())
    (signed / "labels.json").write_bytes(labels)
    digest = hashlib.sha256(labels).hexdigest()
    manifest["files"]["labels.json"] = {"sha256": digest, "bytes": len(labels)}
    (signed / "manifest.json").write_text(json.dumps(manifest))
    code, told = run("sign", signed, "--key", keys[0])
    assert (code, "has 0 labels for a model of 5 classes" in told) == (1, True)
    assert not (signed / "manifest.sig").exists()


def test_a_bundle_that_is_replaced_while_it_is_signed_gets_no_signature(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = SigningKey.sign

    def sign(key: SigningKey, manifest: bytes) -> bytes:
        write_bundle(signed, "onnxruntime", tiny_model(), variant="b3")
        return usual(key, manifest)

    monkeypatch.setattr(SigningKey, "sign", sign)
    with pytest.raises(BundleError, match="was replaced while it was signed: sign it again"):
        sign_bundle(signed, SigningKey(keys[0]))
    assert not (signed / "manifest.sig").exists()
    assert Bundle.load(signed).manifest.variant == "b3"


def test_a_bundle_that_is_replaced_keeps_no_signature(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    write_bundle(signed, "onnxruntime", tiny_model())
    assert not (signed / "manifest.sig").exists()
    with BundleWriter(signed) as writer:
        (writer.staging / "model.onnx").write_bytes(b"a model")
        manifest = replace(read_manifest(signed), labels=None)
        writer.commit(manifest, None, SigningKey(keys[0]))
    assert Bundle.load(signed, trusted=TrustedKey(keys[1])).labels is None


def test_keys_that_cannot_be_used_are_told_in_one_line(signed: Path, tmp_path: Path) -> None:
    encrypted = tmp_path / "encrypted.pem"
    passphrase = serialization.BestAvailableEncryption(b"secret")
    encrypted.write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(PEM, PKCS8, passphrase)
    )
    (tmp_path / "noise.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n")
    write_keys(tmp_path, "x", x25519.X25519PrivateKey.generate())
    write_keys(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    write_keys(tmp_path, "good")
    for name, told in {
        "encrypted.pem": "is encrypted",
        "noise.pem": "is no private key in PEM",
        "x.pem": "is a key of another kind",
        "rsa.pem": "is a key of another kind",
        "good.pub.pem": "is no private key in PEM",
        "missing.pem": "is missing",
        ".": "cannot be read: Is a directory",
    }.items():
        code, output = run("sign", signed, "--key", tmp_path / name)
        assert (code, name, told in output, "\n" in output) == (1, name, True, False)
    for name, told in {
        "good.pem": "is a private key, which stays",
        "encrypted.pem": "is a private key, which stays",
        "rsa.pub.pem": "is a key of another kind",
        "missing.pem": "is missing",
    }.items():
        with pytest.raises(UsageError, match=told):
            EngineRunner.load(signed, trusted=tmp_path / name)
    with pytest.raises(UsageError, match="the trusted key: is no public key in PEM"):
        EngineRunner.load(signed, trusted=b"\0" * 40)


def test_without_cryptography_one_line_tells_how_to_install_it(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(BackendError, match=r"pip install 'effnet-edge\[signing\]'"):
        EngineRunner.load(signed, trusted=keys[1])
    EngineRunner.load(signed).close()
