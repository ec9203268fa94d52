"""Fills a network that the user built with trained weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.model.checkpoints.fitting import fill
from effnet_edge.model.checkpoints.output_activation import check_output_activation
from effnet_edge.model.checkpoints.own_normalization import leave_out_own_normalization
from effnet_edge.model.checkpoints.telling import CheckpointFacts, tell
from effnet_edge.model.conventions import ToldConventions
from effnet_edge.model.finding import find_weights
from effnet_edge.model.preprocessing import AS_REFERENCE, PixelConventions

if TYPE_CHECKING:
    import os

    from effnet_edge.model.checkpoints.found import FoundCheckpoint
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.model.variants import Padding
    from effnet_edge.progress import Progress


@dataclass(frozen=True)
class WeightsOrigin:
    """Where a network's weights came from, and what they expect.

    Attributes:
        name, source, licence: as in `FoundCheckpoint`.
        sha256: of the checkpoint, hexadecimal; see `Checkpoint`.
        scheme: the naming scheme that was detected.
        pixels: what the weights expect of pictures, where that is not as in the reference.
    """

    name: str
    source: str
    sha256: str
    licence: str | None
    scheme: str
    pixels: PixelConventions = AS_REFERENCE


def load_weights(
    network: EfficientNet,
    weights: str | os.PathLike[str],
    *,
    padding: Padding | None = None,
    on_progress: Progress | None = None,
) -> WeightsOrigin:
    """Fill `network` with the weights of that name, or from that file.

    The network also takes over the padding, batch norm's ε, pooling and activation of the code base
    that the weights come from, as far as the checkpoint or a `config.json` beside it tells; the
    state dict of an `EfficientNet` tells all of them, and what nothing tells stays. Its resolution
    stays; what the weights were evaluated with is in the result's `pixels`.

    Args:
        weights: a name ("imagenet"; see `registry.NAMED_WEIGHTS`) or an address on the Hugging Face
            hub (`hf://OWNER/REPO[@REVISION][/FILE]`), which may have to be downloaded, or a
            checkpoint file of a format that docs/your-model.md lists. Nothing in it is executed.
        padding: what the weights were trained with, whatever the checkpoint looks like.
        on_progress: of a download: called with what is done, the bytes so far, and all bytes.

    Raises:
        UsageError: no such name, file, or place on the hub, or no such padding.
        CheckpointError: the file is truncated, is no checkpoint, or does not fit the network;
            the text names the first tensors that are missing, extra or of the wrong shape. Or it
            cannot be downloaded.
    """
    found = find_weights(network.variant, str(weights), on_progress)
    facts = fill_as_told(network, found, padding)
    return WeightsOrigin(
        found.name,
        found.source,
        found.checkpoint.sha256,
        found.licence,
        facts.scheme.name,
        facts.pixels,
    )


def fill_as_told(
    network: EfficientNet, found: FoundCheckpoint, padding: Padding | None = None
) -> CheckpointFacts:
    """Let a network that is there already compute as the checkpoint tells, and fill it.

    Raises:
        CheckpointError: the checkpoint does not fit, or its network padded otherwise.
        UsageError: its outputs go through what values do not.
    """
    facts = tell(found, network.variant)
    check_output_activation(found.name, found.checkpoint.output_activation, network.output_kind)
    leave_out_own_normalization(found.name, facts.statistics)
    conventions = facts.conventions(ToldConventions(padding), network.conventions)
    facts.check_padding(
        network.variant,
        network.resolution,
        conventions.padding,
        is_asked_for=padding is not None,
    )
    fill(network, facts.tensors, facts.scheme, found.name, conventions)
    return facts
