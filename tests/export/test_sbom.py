"""The bill of materials is CycloneDX, and names every package that is installed."""

from __future__ import annotations

import json
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from tiny_bundles import manifest

from effnet_edge.bundle import FileRecord
from effnet_edge.model.provenance import Weights
from effnet_export.sbom import sbom

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"model.xml": FileRecord("0" * 64, 1), "model.bin": FileRecord("1" * 64, 2)}


def described(**changes: Any) -> tuple[str, dict[str, Any]]:
    text = sbom(manifest(**{"created": "2024-01-01T00:00:00Z", **changes}), FILES)
    return text, json.loads(text)


def test_the_published_schema_takes_it() -> None:
    text, document = described(weights=Weights("w", "https://x", "2" * 64, "Apache-2.0"))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    del document["components"][-1]["name"]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is not None


def test_every_package_and_every_file_is_in_it() -> None:
    _, document = described()
    by_type: dict[str, list[dict[str, Any]]] = {}
    for component in document["components"]:
        by_type.setdefault(component["type"], []).append(component)
    installed = {
        each.metadata["Name"].lower().replace("_", "-") for each in metadata.distributions()
    }
    named = {each["name"] for each in by_type["library"]}
    assert {each.replace(".", "-") for each in installed} == named
    for each in by_type["library"]:
        purl = PackageURL.from_string(each["purl"])
        assert (purl.type, purl.name, purl.version) == ("pypi", each["name"], each["version"])
    assert {each["name"]: each["hashes"][0]["content"] for each in by_type["file"]} == {
        name: record.sha256 for name, record in FILES.items()
    }


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("License-Expression: MIT OR Apache-2.0", [{"expression": "MIT OR Apache-2.0"}]),
        ("License: BSD", [{"license": {"name": "BSD"}}]),
        (
            "License: a text\n        of several lines\nClassifier: License :: OSI Approved :: "
            "MIT License\nClassifier: Programming Language :: Python",
            [{"license": {"name": "MIT License"}}],
        ),
        ("License: UNKNOWN", None),
        ("Summary: no licence", None),
    ],
)
def test_licences_as_far_as_metadata_tells(
    told: str, expected: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "some_thing-1.0+cpu.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: Some.Thing\nVersion: 1.0+cpu\n{told}\n"
    )
    found = list(metadata.distributions(path=[str(tmp_path)]))
    monkeypatch.setattr(metadata, "distributions", lambda: found)
    text, document = described()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    package = document["components"][-1]
    assert package["purl"] == "pkg:pypi/some-thing@1.0%2Bcpu"
    assert package.get("licenses") == expected


def test_the_same_is_the_same_and_another_has_another_number() -> None:
    assert described()[0] == described()[0]
    other = described(created="2024-01-01T00:00:01Z")[1]
    assert described()[1]["serialNumber"] != other["serialNumber"]
