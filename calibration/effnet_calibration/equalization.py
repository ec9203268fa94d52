"""Per-channel factors that make quantization finer and change nothing else.

Three tensors of an EfficientNet have channels that may be scaled for free:

- the input of a depthwise convolution, which never mixes channels: the factor multiplies the SiLU
  before it and divides the depthwise weights;
- the input of a projection, through the squeeze-excitation gate, a per-channel multiplier already:
  the factor multiplies the gate and divides the projection's input weights;
- a stage's residual stream, which is linear between a projection and the layers that read it: the
  factor multiplies every projection of the stage and divides every reader's input weights.

All are exact in real arithmetic. They change the network in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from effnet_calibration.sites import CLASSIFIER, HEAD, blocks, layer
from effnet_edge.model.network import ConvBnAct

if TYPE_CHECKING:
    from effnet_edge.model.network import EfficientNet, MBConv, SqueezeExcitation


class ScaledSiLU(nn.Module):
    """SiLU times a factor a channel: float32 (N, C, H, W)."""

    factors: Tensor

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.register_buffer("factors", factors.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) → the same shape."""
        return nn.functional.silu(x) * self.factors


class ScaledSqueezeExcitation(nn.Module):
    """Squeeze-excitation whose gate also scales each channel, and which subtracts a constant.

    The submodules are those of the original, under the same names.
    """

    factors: Tensor

    def __init__(self, original: SqueezeExcitation, factors: Tensor, centre: float = 0.0) -> None:
        super().__init__()
        self.pool = original.pool
        self.reduce = original.reduce
        self.act = original.act
        self.expand = original.expand
        self.gate = original.gate
        self.register_buffer("factors", factors.view(1, -1, 1, 1))
        self.centre = centre

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) → the same shape."""
        gate = self.gate(self.expand(self.act(self.reduce(self.pool(x))))) * self.factors
        scaled: Tensor = x * gate
        return scaled - self.centre if self.centre else scaled


def has_scalable_depthwise_input(block_name: str, block: MBConv) -> bool:
    """Whether a SiLU that a factor can follow comes before the depthwise convolution.

    Not so in the blocks of the first stage after its first: there the depthwise convolution reads
    the residual stream.
    """
    return isinstance(block.expand, ConvBnAct) or block_name == "stages.0.0"


def equalize_depthwise(network: EfficientNet, block_name: str, factors: Tensor) -> None:
    """Scale the input channels of a block's depthwise convolution by `factors`, float32 (C,)."""
    block = cast("MBConv", network.get_submodule(block_name))
    producer = block.expand if isinstance(block.expand, ConvBnAct) else network.stem
    cast("nn.Module", producer).act = ScaledSiLU(factors)
    _divide(block.depthwise.conv, factors.view(-1, 1, 1, 1))


def equalize_projection(
    network: EfficientNet, block_name: str, factors: Tensor, centre: float = 0.0
) -> None:
    """Scale the input channels of a block's projection by `factors`, and subtract `centre`.

    Args:
        factors: float32 (C,).
        centre: a value of the scaled tensor; subtracted from all of it, and given back through
            the projection's bias.
    """
    block = cast("MBConv", network.get_submodule(block_name))
    block.se = ScaledSqueezeExcitation(block.se, factors, centre)  # type: ignore[assignment]
    conv = block.project.conv
    _divide(conv, factors.view(1, -1, 1, 1))
    if centre:
        restored = conv.weight.double().sum((1, 2, 3)) * centre
        conv.bias = _parameter(_bias(conv).double() + restored)


def equalize_stream(network: EfficientNet, stage_index: int, factors: Tensor) -> None:
    """Scale the channels of what a stage's projections add up to by `factors`, float32 (C,)."""
    for conv in _projections(network, stage_index):
        conv.weight = _parameter(conv.weight.double() * factors.double().view(-1, 1, 1, 1))
        conv.bias = _parameter(_bias(conv).double() * factors.double())
    for name in stream_readers(network, stage_index):
        reader = cast("nn.Conv2d", layer(network, name))
        per_input = reader.groups == 1
        _divide(reader, factors.view(1, -1, 1, 1) if per_input else factors.view(-1, 1, 1, 1))


def stream_readers(network: EfficientNet, stage_index: int) -> list[str]:
    """Names of the convolutions that read a stage's residual stream."""
    inside = [
        name
        for name, _ in blocks(network)
        if name.startswith(f"stages.{stage_index}.") and not name.endswith(".0")
    ]
    after = f"stages.{stage_index + 1}.0"
    names = inside if stage_index + 1 == len(network.stages) else [*inside, after]
    readers = [_first_convolution(network, name) for name in names]
    return [*readers, HEAD] if stage_index + 1 == len(network.stages) else readers


def scale_logits(network: EfficientNet, factor: float) -> None:
    """Multiply the logits by `factor`, through the classifier's weights and bias."""
    classifier = cast("nn.Linear", layer(network, CLASSIFIER))
    classifier.weight = _parameter(classifier.weight.double() * factor)
    classifier.bias = _parameter(_bias(classifier).double() * factor)


def _projections(network: EfficientNet, stage_index: int) -> list[nn.Conv2d]:
    stage = f"stages.{stage_index}."
    return [block.project.conv for name, block in blocks(network) if name.startswith(stage)]


def _first_convolution(network: EfficientNet, block_name: str) -> str:
    block = cast("MBConv", network.get_submodule(block_name))
    part = "expand" if isinstance(block.expand, ConvBnAct) else "depthwise"
    return f"{block_name}.{part}.conv"


def _divide(conv: nn.Conv2d, factors: Tensor) -> None:
    conv.weight = _parameter(conv.weight.double() / factors.double())


def _parameter(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.float(), requires_grad=False)


def _bias(module: nn.Conv2d | nn.Linear) -> Tensor:
    if module.bias is None:
        return torch.zeros(module.weight.shape[0])
    return module.bias
