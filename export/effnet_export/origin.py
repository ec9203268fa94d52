"""The network that a bundle was made from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError
from effnet_edge.model.places import find_file
from effnet_edge.model.remote.hub import is_hub_address
from effnet_edge.model.remote.registry import weight_names
from effnet_edge.model.request import RANDOM_WEIGHTS, NetworkRequest
from effnet_edge.model.source import Source, load_source

if TYPE_CHECKING:
    from effnet_edge.bundle import Manifest


def network_request_of(manifest: Manifest) -> NetworkRequest:
    """What the bundle was exported for, with its weights where they were then."""
    recorded, preprocessing = manifest.weights, manifest.preprocessing
    named = recorded.name in (RANDOM_WEIGHTS, *weight_names(manifest.variant))
    return NetworkRequest(
        manifest.variant,
        recorded.name if named else recorded.source,
        manifest.output.classes,
        manifest.output.kind,
        preprocessing.resolution,
        manifest.padding,
        preprocessing.mean,
        preprocessing.std,
        preprocessing.fit,
        manifest.batch_norm_eps,
        manifest.pooling,
        manifest.activation,
    )


def load_source_of(manifest: Manifest, weights: str | None = None) -> Source:
    """The network that a bundle was made from.

    Args:
        weights: its checkpoint file, if that is not where the manifest says.

    Raises:
        UsageError: the checkpoint is not there, or is another one than the bundle's.
        CheckpointError: the checkpoint does not fit.
    """
    request = network_request_of(manifest)
    where, recorded = weights or request.weights or "", manifest.weights
    is_path = where not in (RANDOM_WEIGHTS, *weight_names(manifest.variant))
    if is_path and not is_hub_address(where) and find_file(where)[0] is None:
        raise UsageError(
            f"--weights {where}: no such file"
            if weights not in (None, request.weights)
            else f"the checkpoint that the bundle was made from is not at {where}: "
            "give --weights FILE"
        )
    source = load_source(replace(request, weights=where))
    if source.weights.sha256 != recorded.sha256:
        raise UsageError(
            f"{where} is not the checkpoint that the bundle was made from (SHA-256 "
            f"{source.weights.sha256[:12]}… instead of {recorded.sha256[:12]}…): "
            "give --weights FILE"
        )
    return replace(source, preprocessing=manifest.preprocessing)
