"""The bill of materials of a bundle, when what is built on the device changes its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effnet_edge import nonfinite
from effnet_edge.bundle.schema import parse_json
from effnet_edge.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from effnet_edge.bundle.manifest import FileRecord, Manifest

Component = dict[str, Any]

SBOM_FILE = "sbom.cdx.json"


def file_component(name: str, record: FileRecord) -> Component:
    """What the bill tells of a file of the bundle."""
    return {
        "type": "file",
        "bom-ref": _reference(name),
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": record.sha256}],
    }


def _reference(name: str) -> str:
    return f"file:{name}"


def model_name(manifest: Manifest) -> str:
    """What it calls the model."""
    return f"{manifest.variant} for {manifest.target} in {' or '.join(manifest.precisions)}"


def next_bill(
    text: bytes, manifest: Manifest, gone: Collection[str], added: Mapping[str, FileRecord]
) -> str:
    """The next version of a bill: without files that are gone, with others, of the model as it is.

    By CycloneDX's rule a changed bill keeps its serial number and counts its version up.

    Raises:
        BundleError: it is no such bill.
    """
    document = parse_json(text, SBOM_FILE)
    changed = {_reference(name) for name in (*gone, *added)}
    try:
        document["components"] = [
            *(file_component(name, added[name]) for name in sorted(added)),
            *(each for each in document["components"] if each.get("bom-ref") not in changed),
        ]
        document["metadata"]["component"]["name"] = model_name(manifest)
        document["version"] = int(document.get("version", 1)) + 1
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{SBOM_FILE}: is no bill of materials of an export") from error
    return nonfinite.dumps(document, indent=1, sort_keys=True) + "\n"
