"""An engine that is compiled into a signed bundle: signed anew, or refused before the work."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from signing_keys import write_keys
from tensorrt_commands import command
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.bundle import Bundle
from effnet_edge.bundle.signing import SigningKey, TrustedKey
from effnet_edge.bundle.writing import sign_bundle
from effnet_edge.errors import BundleError, UsageError
from effnet_edge.runtime.tensorrt.build import build_engine

if TYPE_CHECKING:
    from pathlib import Path

    from fake_tensorrt import FakeTensorRt


@pytest.fixture
def makers(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "maker")


@pytest.fixture
def signed(tmp_path: Path, library: FakeTensorRt, makers: tuple[Path, Path]) -> Path:  # noqa: ARG001
    path = write_bundle(tmp_path / "b", "tensorrt", tiny_model())
    sign_bundle(path, SigningKey(makers[0]))
    return path


def test_without_a_key_nothing_is_built_and_the_signature_stays(
    signed: Path, makers: tuple[Path, Path], library: FakeTensorRt, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(UsageError, match=r"is signed, and an engine changes what was signed"):
        build_engine(Bundle.load(signed))
    assert command("build", signed, "--quiet") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert library.configs == []
    Bundle.load(signed, trusted=TrustedKey(makers[1]))


def test_the_device_signs_what_it_built_from_what_it_trusts(
    signed: Path, makers: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    private, public = write_keys(tmp_path, "device")
    asked = ("build", signed, "--trusted", makers[1], "--sign", private, "--json")
    assert command(*asked) == 0
    told = json.loads(capsys.readouterr().out)
    device = TrustedKey(public)
    assert told["signed_by"] == device.fingerprint
    assert told["file"] in Bundle.load(signed, trusted=device).manifest.files
    with pytest.raises(BundleError, match="another key"):
        Bundle.load(signed, trusted=TrustedKey(makers[1]))


def test_nothing_is_built_from_what_is_not_trusted(
    signed: Path, tmp_path: Path, library: FakeTensorRt
) -> None:
    private, public = write_keys(tmp_path, "device")
    assert command("build", signed, "--trusted", public, "--sign", private) == 1
    assert library.configs == []
