"""The tensors that are quantized: the inputs of every convolution but the stem's."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from effnet_calibration.errors import CalibrationError
from effnet_edge.model.network import Block, ConvBnAct, EfficientNet

if TYPE_CHECKING:
    from collections.abc import Iterator

STEM = "stem.conv"
HEAD = "head.conv"
CLASSIFIER = "classifier"

SiteKind = Literal["expand", "depthwise", "squeeze", "excite", "project", "head", "classifier"]
Layer = nn.Conv2d | nn.Linear


@dataclass(frozen=True)
class Site:
    """One quantized tensor, called by the module that reads it ("stages.1.0.depthwise.conv")."""

    name: str
    kind: SiteKind


def blocks(network: EfficientNet) -> Iterator[tuple[str, Block]]:
    """Every block with its module name ("stages.1.0"), first to last."""
    for stage_index, stage in enumerate(network.stages):
        for block_index, block in enumerate(cast("nn.Sequential", stage)):
            yield f"stages.{stage_index}.{block_index}", cast("Block", block)


def is_expanded(block: Block) -> bool:
    """Whether the projection reads an activation or a gate, not the residual stream."""
    return isinstance(block.expand, ConvBnAct) or isinstance(block.depthwise, ConvBnAct)


def sites(network: EfficientNet) -> list[Site]:
    """All quantized tensors in the order of execution."""
    found = []
    for name, block in blocks(network):
        if isinstance(block.expand, ConvBnAct):
            found.append(Site(f"{name}.expand.conv", "expand"))
        if isinstance(block.depthwise, ConvBnAct):
            found.append(Site(f"{name}.depthwise.conv", "depthwise"))
        if not isinstance(block.se, nn.Identity):
            found.append(Site(f"{name}.se.reduce", "squeeze"))
            found.append(Site(f"{name}.se.expand", "excite"))
        found.append(Site(f"{name}.project.conv", "project" if is_expanded(block) else "expand"))
    found.append(Site(HEAD, "head"))
    return [*found, Site(CLASSIFIER, "classifier")] if has_classifier(network) else found


def has_classifier(network: EfficientNet) -> bool:
    """Whether logits come out, and not the features that they are made of."""
    return isinstance(network.classifier, nn.Linear)


def squeeze_excitations(network: EfficientNet) -> set[str]:
    """Names of the gates' layers. Measured on B0, correcting their biases does harm."""
    return {site.name for site in sites(network) if site.kind in {"squeeze", "excite"}}


def depthwise_convolutions(network: EfficientNet) -> set[str]:
    """Names of the depthwise convolutions."""
    return {site.name for site in sites(network) if site.kind == "depthwise"}


def last_projection(network: EfficientNet) -> str:
    """Name of the last block's projection."""
    *_, (name, _) = blocks(network)
    return f"{name}.project.conv"


def quantized_layers(network: EfficientNet) -> dict[str, Layer]:
    """Every layer with 8-bit weights, by name: the stem's and the readers of all sites."""
    names = [STEM, *(site.name for site in sites(network))]
    return {name: layer(network, name) for name in names}


def layer(network: EfficientNet, name: str) -> Layer:
    """The convolution or linear layer of that module name."""
    return cast("Layer", network.get_submodule(name))


def channels_last(network: EfficientNet) -> EfficientNet:
    """A copy whose weights lie as the CPU's convolutions are fastest, and whose activations save
    the time and the memory of a second tensor.
    """
    fast = copy.deepcopy(network)
    for module in fast.modules():
        if isinstance(module, (nn.SiLU, nn.ReLU, nn.ReLU6)):
            module.inplace = True
    for parameter in fast.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return fast


def check_network(network: EfficientNet) -> None:
    """Refuse what cannot be quantized.

    Raises:
        CalibrationError: the network gives feature maps, has batch norms, or a weight that is NaN
            or infinite; the text names it.
    """
    if network.features_only:
        raise CalibrationError("a features-only network has no head to calibrate by")
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            raise CalibrationError(f"{name} is not folded: call fold_batch_norm first")
    for name, tensor in network.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise CalibrationError(
                f"the weights hold NaN or infinity in {name}: this network cannot be quantized"
            )


def input_channel_energy(reader: Layer) -> Tensor:
    """Σ w² over all weights that multiply each input channel, float32 (input channels,).

    How much of an error in the channel reaches the layer's output.
    """
    weight = reader.weight.detach().flatten(1)
    if isinstance(reader, nn.Conv2d) and reader.groups > 1:
        return weight.square().sum(1)
    return weight.view(weight.shape[0], reader.weight.shape[1], -1).square().sum((0, 2))
