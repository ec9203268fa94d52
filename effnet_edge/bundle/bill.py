"""The bill of materials of a bundle that was made with several graphs, when one of them is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge import nonfinite
from effnet_edge.bundle.schema import parse_json
from effnet_edge.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Collection

    from effnet_edge.bundle.manifest import Manifest

SBOM_FILE = "sbom.cdx.json"


def file_reference(name: str) -> str:
    """What the bill calls a file of the bundle."""
    return f"file:{name}"


def model_name(manifest: Manifest) -> str:
    """What it calls the model."""
    return f"{manifest.variant} for {manifest.target} in {' or '.join(manifest.precisions)}"


def without_files(text: bytes, gone: Collection[str], manifest: Manifest) -> str:
    """The next version of a bill: without files that are gone, of the model as it is now.

    By CycloneDX's rule a changed bill keeps its serial number and counts its version up.

    Raises:
        BundleError: it is no such bill.
    """
    document = parse_json(text, SBOM_FILE)
    references = {file_reference(name) for name in gone}
    try:
        document["components"] = [
            each for each in document["components"] if each.get("bom-ref") not in references
        ]
        document["metadata"]["component"]["name"] = model_name(manifest)
        document["version"] = int(document.get("version", 1)) + 1
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{SBOM_FILE}: is no bill of materials of an export") from error
    return nonfinite.dumps(document, indent=1, sort_keys=True) + "\n"
