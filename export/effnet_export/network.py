"""The network that an export starts from: variant, weights, and what the pixels go through."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from effnet_edge.bundle import Manifest, Weights
from effnet_edge.errors import UsageError
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.preprocessing import variant_preprocessing, with_channels
from effnet_edge.model.variants import IMAGENET_CLASSES, Padding, Variant, get_variant
from effnet_edge.model.weights import load_weights

if TYPE_CHECKING:
    from effnet_edge.image import Preprocessing
    from effnet_edge.outputs import OutputKind

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
) -> Source:
    """Build a variant and fill it, with the input channels that the checkpoint has.

    Args:
        weights: "imagenet", a checkpoint file, or "random"; "imagenet" if not given.
        output_kind: "features" leaves the classifier out, whatever `num_classes` says.
        mean, std: one value a channel in units of pixel / 255; see `with_channels` for their
            defaults. Random weights get as many channels as `mean` has values.
        padding: what the weights were trained with; if None, as the checkpoint's naming tells, and
            SAME where it tells nothing.

    Raises:
        UsageError: an unknown variant, a variant without named weights and none given, or a mean
            or deviation that does not fit the channels.
        CheckpointError: the checkpoint does not fit.
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
    filled = _fill(network, name, padding)
    preprocessing = with_channels(
        variant_preprocessing(variant, resolution), network.stem.conv.in_channels, mean, std
    )
    return Source(network, preprocessing, filled)


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
    named = recorded.name in (RANDOM_WEIGHTS, variant.named_weights)
    where = weights or (recorded.name if named else recorded.source)
    if not named and not Path(where).is_file():
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
    return source


def _default_weights(variant: Variant) -> str:
    if variant.named_weights is None:
        raise UsageError(
            f"{variant.name} has no named weights: give --weights FILE, "
            f"or --weights {RANDOM_WEIGHTS} to try the chain without a trained model"
        )
    return variant.named_weights


def _fill(network: EfficientNet, weights: str, padding: Padding | None) -> Weights:
    if weights == RANDOM_WEIGHTS:
        digest = hashlib.sha256()
        for tensor in network.state_dict().values():
            digest.update(tensor.numpy().tobytes())
        return Weights(
            RANDOM_WEIGHTS, "untrained: random initialization, seed 0", digest.hexdigest(), None
        )
    origin = load_weights(network, weights, padding=padding, take_in_channels=True)
    return Weights(origin.name, origin.source, origin.sha256, origin.licence)
