"""The bill of materials of an export: the Python packages that were there, and the model's files.

CycloneDX 1.6 JSON (ECMA-424), without dependencies between the packages.
"""

from __future__ import annotations

import json
import re
import uuid
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from effnet_edge import __version__, nonfinite
from effnet_edge.bundle.bill import SBOM_FILE, Component, file_component, model_name
from effnet_edge.bundle.writing import file_records
from effnet_edge.extras import DISTRIBUTION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from effnet_edge.bundle import FileRecord, Manifest

_LONGEST_NAME = 100
_LICENCE_CLASSIFIER = "License :: "


def write_sbom(manifest: Manifest, folder: Path) -> None:
    """Put it beside a bundle's files, all of which are in `folder`."""
    text = sbom(manifest, file_records(folder))
    (folder / SBOM_FILE).write_text(text, encoding="utf-8")


def sbom(manifest: Manifest, files: Mapping[str, FileRecord]) -> str:
    """The text of `SBOM_FILE`; the same for the same packages, manifest and files.

    Args:
        manifest: tells the time, the model and Python.
        files: the bundle's, without this one, by name.
    """
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": manifest.created,
            "tools": {
                "components": [
                    {"type": "application", "name": DISTRIBUTION, "version": __version__}
                ]
            },
            "component": _model(manifest),
        },
        "components": [
            *(file_component(name, record) for name, record in sorted(files.items())),
            {"type": "platform", "name": "Python", "version": manifest.machine.python},
            *_packages(metadata.distributions()),
        ],
    }
    content = json.dumps(document, sort_keys=True)
    # A random number would make every export another one.
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, content).urn
    return nonfinite.dumps(document, indent=1, sort_keys=True) + "\n"


def _model(manifest: Manifest) -> Component:
    weights = manifest.weights
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": model_name(manifest),
        "description": f"weights: {weights.name}, {weights.source}, SHA-256 {weights.sha256}",
        **_licences([weights.licence] if weights.licence else []),
    }


def _packages(installed: Iterable[metadata.Distribution]) -> list[Component]:
    """One component for each name, the one that is imported where there are several."""
    found: dict[str, Component] = {}
    for distribution in installed:
        name = distribution.metadata["Name"]
        if name:
            canonical = re.sub(r"[-_.]+", "-", name).lower()
            found.setdefault(canonical, _package(canonical, distribution))
    return [found[name] for name in sorted(found)]


def _package(name: str, distribution: metadata.Distribution) -> Component:
    purl = f"pkg:pypi/{name}@{quote(distribution.version, safe='')}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": distribution.version,
        "purl": purl,
        **_package_licences(distribution),
    }


def _package_licences(distribution: metadata.Distribution) -> Component:
    """As far as its metadata tells: an SPDX expression, a name, or its classifiers."""
    told = distribution.metadata
    if "License-Expression" in told:
        return {"licenses": [{"expression": told["License-Expression"].strip()}]}
    name = told["License"].strip() if "License" in told else ""
    if name and "\n" not in name and len(name) <= _LONGEST_NAME and name != "UNKNOWN":
        return _licences([name])
    classifiers = told.get_all("Classifier") or []
    return _licences(
        each.rpartition(" :: ")[2] for each in classifiers if each.startswith(_LICENCE_CLASSIFIER)
    )


def _licences(names: Iterable[str]) -> Component:
    licences = [{"license": {"name": name}} for name in dict.fromkeys(names)]
    return {"licenses": licences} if licences else {}
