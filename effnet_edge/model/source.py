"""The network that was asked for: built once, as its checkpoint tells, and filled."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from effnet_edge.errors import CheckpointWarning, UsageError
from effnet_edge.labels import IMAGENET_CLASSES
from effnet_edge.model.checkpoints.fitting import fill
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES
from effnet_edge.model.checkpoints.output_activation import check_output_activation
from effnet_edge.model.checkpoints.own_normalization import (
    check_own_normalization,
    leave_out_own_normalization,
)
from effnet_edge.model.checkpoints.telling import CheckpointFacts, tell
from effnet_edge.model.conventions import Conventions
from effnet_edge.model.finding import find_weights
from effnet_edge.model.network import BATCH_NORM_EPS, EfficientNet
from effnet_edge.model.preprocessing import variant_preprocessing, with_channels
from effnet_edge.model.provenance import Weights
from effnet_edge.model.remote.registry import IMAGENET, weight_names
from effnet_edge.model.request import RANDOM_WEIGHTS
from effnet_edge.model.variants import Variant, get_variant
from effnet_edge.outputs import ONE_OUTPUT

if TYPE_CHECKING:
    from effnet_edge.model.request import NetworkRequest
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.progress import Progress

COLOURS = 3


@dataclass(frozen=True)
class Source:
    """A network in evaluation mode, and all that a manifest says about it."""

    network: EfficientNet
    preprocessing: Preprocessing
    weights: Weights
    checkpoint: CheckpointFacts | None = None
    """What the weights were read from; None where they are random."""


def load_source(request: NetworkRequest, on_progress: Progress | None = None) -> Source:
    """Build the network that the checkpoint tells, but for what the request says, and fill it.

    Args:
        on_progress: of a download.

    Raises:
        UsageError: an unknown variant or name, none given for a variant without "imagenet", another
            number of classes than the checkpoint's, one output for exclusive classes, or a mean or
            deviation that does not fit the channels.
        CheckpointError: the checkpoint does not fit, or cannot be downloaded.
    """
    variant = get_variant(request.variant)
    weights = _default_weights(variant) if request.weights is None else request.weights
    if weights == RANDOM_WEIGHTS:
        network, preprocessing = _built(request, variant, _untold(request))
        return Source(network, preprocessing, _untrained(network))
    found = find_weights(variant, weights, on_progress)
    facts = tell(found, variant)
    _check_classes(request, facts, found.name)
    check_output_activation(found.name, found.checkpoint.output_activation, request.output_kind)
    network, preprocessing = _built(request, variant, facts)
    _check_normalization(request, facts, preprocessing, found.name)
    if found.path is not None and request.padding is None and facts.leaves_padding_open:
        _warn_of_padding(network, found.name)
    fill(network, facts.tensors, facts.scheme, found.name)
    origin = Weights(found.name, found.source, found.checkpoint.sha256, found.licence)
    return Source(network, preprocessing, origin, facts)


def _built(
    request: NetworkRequest, variant: Variant, facts: CheckpointFacts
) -> tuple[EfficientNet, Preprocessing]:
    in_channels = facts.in_channels or COLOURS
    preprocessing = with_channels(
        variant_preprocessing(variant, request.resolution, facts.pixels, request.fit),
        in_channels,
        request.mean,
        request.std,
    )
    num_classes = request.num_classes or facts.num_classes or IMAGENET_CLASSES
    usual = Conventions("same", BATCH_NORM_EPS, "avg", variant.family.activation)
    conventions = facts.conventions(request.conventions, usual)
    facts.check_padding(
        variant,
        preprocessing.resolution,
        conventions.padding,
        is_asked_for=request.padding is not None,
    )
    torch.manual_seed(0)
    network = EfficientNet(
        variant,
        num_classes=0 if request.output_kind == "features" else num_classes,
        output_kind=request.output_kind,
        in_channels=in_channels,
        resolution=preprocessing.resolution,
        padding=conventions.padding,
        batch_norm_eps=conventions.batch_norm_eps,
        pooling=conventions.pooling,
        activation=conventions.activation,
    )
    return network.eval(), preprocessing


def _check_classes(request: NetworkRequest, facts: CheckpointFacts, name: str) -> None:
    asked, told = request.num_classes, facts.num_classes
    if told == 1 and request.output_kind == "single-label":
        raise UsageError(f"{name}: {ONE_OUTPUT}")
    if request.output_kind == "features" or asked is None or told is None:
        return
    if asked not in {told, facts.classifier_rows}:
        raise UsageError(
            f"--num-classes {asked}: the classifier in {name} has {told} classes: "
            "leave --num-classes out, or give another checkpoint"
        )


def _warn_of_padding(network: EfficientNet, name: str) -> None:
    """Say what is taken where networks of either padding have these names, and none is told."""
    told = network.conventions
    warnings.warn(
        f"{name} does not say how its network pads, and networks of either padding have these "
        f"names: taken for {told.padding} with an epsilon of {told.batch_norm_eps:g}, as timm's "
        "tf_… are; say --padding symmetric for its others, --padding same for this, or let "
        "--against tell",
        CheckpointWarning,
        stacklevel=2,
    )


def _check_normalization(
    request: NetworkRequest, facts: CheckpointFacts, preprocessing: Preprocessing, name: str
) -> None:
    """What a person says of the pixels outweighs what the network keeps of them."""
    if request.mean is None or request.std is None:
        check_own_normalization(name, facts.statistics, preprocessing.mean, preprocessing.std)
    else:
        leave_out_own_normalization(name, facts.statistics)


def _default_weights(variant: Variant) -> str:
    names = weight_names(variant.name)
    if IMAGENET not in names:
        raise UsageError(
            f"{variant.name} has no weights named {IMAGENET}: give --weights "
            f"{' or '.join((*names, 'FILE'))}, or --weights {RANDOM_WEIGHTS} to try the chain "
            "without a trained model"
        )
    return IMAGENET


def _untold(request: NetworkRequest) -> CheckpointFacts:
    """What there is to know of a network without a checkpoint."""
    channels = None if request.mean is None else len(request.mean)
    return CheckpointFacts(NAMING_SCHEMES[0], in_channels=channels)


def _untrained(network: EfficientNet) -> Weights:
    digest = hashlib.sha256()
    for tensor in network.tensors().values():
        digest.update(tensor.numpy().tobytes())
    source = "untrained: random initialization, seed 0"
    return Weights(RANDOM_WEIGHTS, source, digest.hexdigest(), None)
