"""Untrained networks that bear rounding better than random ones: every variant can go through the
gates of 16 bit and of INT8 without trained weights.

In a network of random weights and whitened layers any noise grows from block to block. Here the
batch norms only bring real pictures' activations to one size, and a block adds little to its
shortcut (Goyal et al. 2017, "Accurate, large minibatch SGD", section 5.1, starts training so).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import nn

from effnet_edge.model.network import Block, ConvBnAct, EfficientNet
from effnet_edge.model.preprocessing import variant_preprocessing
from effnet_edge.model.variants import VARIANTS
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.pictures.image import normalize

if TYPE_CHECKING:
    from pathlib import Path

    from effnet_edge.outputs import OutputKind

PHOTOS = 16
BRANCH_GAIN = 0.2
LOGIT_DEVIATION = 2.0


def conditioned_network(
    variant: str, resolution: int, *, classes: int = 10, output_kind: OutputKind = "single-label"
) -> EfficientNet:
    """In evaluation mode, with its batch norms."""
    torch.manual_seed(0)
    network = EfficientNet(
        VARIANTS[variant], resolution=resolution, num_classes=classes, output_kind=output_kind
    )
    photos = _photos(variant, resolution)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # Channels differ in range, as trained ones do.
            module.weight.data = torch.exp2(torch.randn(module.num_features) / 4)
    for module in network.modules():
        if isinstance(module, Block) and module.has_shortcut:
            module.project.bn.weight.data *= BRANCH_GAIN
    _measure_batch_norms(network.eval(), photos)
    with torch.no_grad():
        logits = network(photos)
        network.classifier.weight *= LOGIT_DEVIATION / logits.std()
    return network


def save_conditioned(variant: str, resolution: int, path: Path, *, classes: int = 10) -> Path:
    """The same as a checkpoint file."""
    save_file(conditioned_network(variant, resolution, classes=classes).state_dict(), path)
    return path


def _photos(variant: str, resolution: int) -> torch.Tensor:
    preprocessing = variant_preprocessing(VARIANTS[variant], resolution)
    ((pixels, _),) = EmbeddedPhotos(PHOTOS).batches(preprocessing, PHOTOS)
    return torch.from_numpy(normalize(pixels, preprocessing))


def _measure_batch_norms(network: EfficientNet, photos: torch.Tensor) -> None:
    """Give every batch norm the size of its own input, first to last in one pass."""

    def measure(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        # The mean stays, and one size does for all channels: to remove what the pictures have in
        # common, or to divide by a small deviation, amplifies whatever noise there is.
        norm.running_var.fill_(float(inputs[0].square().mean()))

    norms = [each.bn for each in network.modules() if isinstance(each, ConvBnAct)]
    handles = [norm.register_forward_pre_hook(measure) for norm in norms]
    with torch.no_grad():
        network(photos)
    for handle in handles:
        handle.remove()
