"""`export --sign`, and what an export puts beside the model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from signing_keys import write_keys

from effnet_edge.bundle import Bundle
from effnet_edge.bundle.signing import TrustedKey
from effnet_edge.cli.main import cli
from effnet_edge.errors import UsageError
from effnet_export.sbom import SBOM_FILE

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = ("--weights", "random", "--resolution", "32", "--num-classes", "3", "--fp32")


@pytest.mark.sample
def test_the_bundle_is_signed_and_has_its_bill_of_materials(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "key")
    place, names = tmp_path / "b", tmp_path / "names.txt"
    names.write_text("a\nb\nc\n")
    asked = ["export", "b0", *NETWORK, "--labels", names, "--sign", private, "-o", place, "--json"]
    told = CliRunner().invoke(cli, list(map(str, asked)), catch_exceptions=False)
    trusted = TrustedKey(public)
    assert json.loads(told.stdout)["signed_by"] == trusted.fingerprint

    bundle = Bundle.load(place, trusted=trusted)
    text = bundle.read(SBOM_FILE)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode()) is None
    components = json.loads(text)["components"]
    files = {each["name"]: each["hashes"] for each in components if each["type"] == "file"}
    assert {"model.xml", "model.bin", "labels.json", "answers.json"} == files.keys()
    for name in bundle.manifest.files.keys() - {SBOM_FILE}:
        sha256 = bundle.manifest.files[name].sha256
        assert files[name] == [{"alg": "SHA-256", "content": sha256}]


def test_a_key_that_cannot_be_used_is_told_before_the_work(tmp_path: Path) -> None:
    key, place = tmp_path / "missing.pem", tmp_path / "b"
    asked = ["export", "b0", *NETWORK, "--sign", key, "-o", place]
    told = CliRunner().invoke(cli, list(map(str, asked)))
    assert isinstance(told.exception, UsageError)
    assert told.output == ""
    assert not place.exists()
