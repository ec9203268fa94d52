"""The network that an export starts from: variant, weights, and what the pixels go through."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from effnet_edge.errors import UsageError
from effnet_edge.labels import IMAGENET_CLASSES
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.preprocessing import (
    AS_REFERENCE,
    variant_preprocessing,
    with_channels,
)
from effnet_edge.model.provenance import Weights
from effnet_edge.model.remote.hub import is_hub_address
from effnet_edge.model.remote.registry import IMAGENET, weight_names
from effnet_edge.model.variants import Padding, Variant, get_variant
from effnet_edge.model.weights import load_weights

if TYPE_CHECKING:
    from effnet_edge.bundle import Manifest
    from effnet_edge.outputs import OutputKind
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.progress import Progress

RANDOM_WEIGHTS = "random"


@dataclass(frozen=True)
class Source:
    """A trained network in evaluation mode, and all that a manifest says about it."""

    network: EfficientNet
    preprocessing: Preprocessing
    weights: Weights


def load_source(
    variant_name: str,
    *,
    weights: str | None = None,
    num_classes: int = IMAGENET_CLASSES,
    resolution: int | None = None,
    padding: Padding | None = None,
    output_kind: OutputKind = "single-label",
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    on_progress: Progress | None = None,
) -> Source:
    """Build a variant and fill it, with the input channels that the checkpoint has.

    Padding, batch norm's ε, resolution and the preparation of pictures are those of the code base
    that the weights come from, as far as they tell.

    Args:
        weights: "imagenet" or another name that the variant has, a checkpoint file, an address on
            the Hugging Face hub, or "random"; "imagenet" if not given.
        resolution: side of the input in pixels, whatever the weights were evaluated at.
        output_kind: "features" leaves the classifier out, whatever `num_classes` says.
        mean, std: one value a channel in units of pixel / 255; see `with_channels` for their
            defaults. Random weights get as many channels as `mean` has values.
        padding: what the weights were trained with; if None, as the checkpoint's naming tells, and
            SAME where it tells nothing.
        on_progress: as in `load_weights`.

    Raises:
        UsageError: an unknown variant or name, none given for a variant without "imagenet", or a
            mean or deviation that does not fit the channels.
        CheckpointError: the checkpoint does not fit, or cannot be downloaded.
    """
    variant = get_variant(variant_name)
    name = _default_weights(variant) if weights is None else weights
    torch.manual_seed(0)
    network = EfficientNet(
        variant,
        num_classes=0 if output_kind == "features" else num_classes,
        multi_label=output_kind == "multi-label",
        in_channels=len(mean) if name == RANDOM_WEIGHTS and mean is not None else 3,
        resolution=resolution,
        padding=padding or "same",
    ).eval()
    pixels = AS_REFERENCE
    if name == RANDOM_WEIGHTS:
        recorded = _untrained(network)
    else:
        origin = load_weights(
            network, name, padding=padding, take_in_channels=True, on_progress=on_progress
        )
        pixels = origin.pixels
        recorded = Weights(origin.name, origin.source, origin.sha256, origin.licence)
    preprocessing = with_channels(
        variant_preprocessing(variant, resolution, pixels),
        network.stem.conv.in_channels,
        mean,
        std,
    )
    if preprocessing.resolution != network.resolution:
        network.set_resolution(preprocessing.resolution)
    return Source(network, preprocessing, recorded)


def load_source_of(manifest: Manifest, weights: str | None = None) -> Source:
    """The network that a bundle was made from.

    Args:
        weights: its checkpoint file, if that is not where the manifest says.

    Raises:
        UsageError: the checkpoint is not there, or is another one than the bundle's.
        CheckpointError: the checkpoint does not fit.
    """
    recorded = manifest.weights
    variant = get_variant(manifest.variant)
    named = recorded.name in (RANDOM_WEIGHTS, *weight_names(variant.name))
    where = weights or (recorded.name if named else recorded.source)
    if not named and not is_hub_address(where) and not Path(where).is_file():
        raise UsageError(
            f"the checkpoint that the bundle was made from is not at {where}: give --weights FILE"
        )
    source = load_source(
        manifest.variant,
        weights=where,
        num_classes=manifest.output.classes,
        resolution=manifest.preprocessing.resolution,
        padding=manifest.padding,
        output_kind=manifest.output.kind,
        mean=manifest.preprocessing.mean,
        std=manifest.preprocessing.std,
    )
    if source.weights.sha256 != recorded.sha256:
        raise UsageError(
            f"{where} is not the checkpoint that the bundle was made from (SHA-256 "
            f"{source.weights.sha256[:12]}… instead of {recorded.sha256[:12]}…): "
            "give --weights FILE"
        )
    return replace(source, preprocessing=manifest.preprocessing)


def _default_weights(variant: Variant) -> str:
    names = weight_names(variant.name)
    if IMAGENET not in names:
        raise UsageError(
            f"{variant.name} has no weights named {IMAGENET}: give --weights "
            f"{' or '.join((*names, 'FILE'))}, or --weights {RANDOM_WEIGHTS} to try the chain "
            "without a trained model"
        )
    return IMAGENET


def _untrained(network: EfficientNet) -> Weights:
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    source = "untrained: random initialization, seed 0"
    return Weights(RANDOM_WEIGHTS, source, digest.hexdigest(), None)
