"""Per-channel factors that make quantization finer and change nothing else.

Three tensors of an EfficientNet have channels that may be scaled for free:

- the input of a depthwise convolution, which never mixes channels: the factor multiplies the
  activation before it and divides the depthwise weights;
- the input of a projection, through the squeeze-excitation gate, a per-channel multiplier already:
  the factor multiplies the gate and divides the projection's input weights. Where there is no gate,
  the factor multiplies the activation: SiLU and ReLU6 do not let it pass to the layer before;
- a stage's residual stream, which is linear between a projection and the layers that read it: the
  factor multiplies every projection of the stage and divides every reader's input weights.

All are exact in real arithmetic. They change the network in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from effnet_calibration.sites import CLASSIFIER, HEAD, blocks, layer
from effnet_edge.model.network import ConvBnAct, SqueezeExcitation

if TYPE_CHECKING:
    from effnet_edge.model.network import Block, EfficientNet


class ScaledActivation(nn.Module):
    """An activation times a factor a channel, less a constant: float32 (N, C, H, W)."""

    factors: Tensor
    centre: Tensor | None

    def __init__(self, original: nn.Module, factors: Tensor, centre: float = 0.0) -> None:
        super().__init__()
        self.original = original
        self.register_buffer("factors", factors.view(1, -1, 1, 1))
        self.register_buffer("centre", _per_channel(centre, factors))

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) → the same shape."""
        scaled: Tensor = self.original(x) * self.factors
        return scaled if self.centre is None else scaled - self.centre


class ScaledSqueezeExcitation(nn.Module):
    """Squeeze-excitation whose gate also scales each channel, and which subtracts a constant.

    The submodules are those of the original, under the same names.
    """

    factors: Tensor
    centre: Tensor | None

    def __init__(self, original: SqueezeExcitation, factors: Tensor, centre: float = 0.0) -> None:
        super().__init__()
        self.pool = original.pool
        self.reduce = original.reduce
        self.act = original.act
        self.expand = original.expand
        self.gate = original.gate
        self.register_buffer("factors", factors.view(1, -1, 1, 1))
        self.register_buffer("centre", _per_channel(centre, factors))

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) → the same shape."""
        gate = self.gate(self.expand(self.act(self.reduce(self.pool(x))))) * self.factors
        scaled: Tensor = x * gate
        return scaled if self.centre is None else scaled - self.centre


def _per_channel(centre: float, factors: Tensor) -> Tensor | None:
    """The constant as a tensor (1, C, 1, 1), or None for 0.

    A scalar becomes a literal in the kernels that TensorRT-RTX generates, and each block of a
    shape gets a kernel of its own.
    """
    return torch.full_like(factors, centre).view(1, -1, 1, 1) if centre else None


def has_scalable_depthwise_input(block_name: str, block: Block) -> bool:
    """Whether there is a depthwise convolution, after an activation that a factor can follow.

    Not so in the blocks of the first stage after its first: there the depthwise convolution reads
    the residual stream.
    """
    after_activation = isinstance(block.expand, ConvBnAct) or block_name == "stages.0.0"
    return isinstance(block.depthwise, ConvBnAct) and after_activation


def equalize_depthwise(network: EfficientNet, block_name: str, factors: Tensor) -> None:
    """Scale the input channels of a block's depthwise convolution by `factors`, float32 (C,)."""
    block = cast("Block", network.get_submodule(block_name))
    producer = block.expand if isinstance(block.expand, ConvBnAct) else network.stem
    producer.act = ScaledActivation(producer.act, factors)
    reader = cast("nn.Conv2d", layer(network, f"{block_name}.depthwise.conv"))
    _divide(reader, factors.view(-1, 1, 1, 1))


def equalize_projection(
    network: EfficientNet, block_name: str, factors: Tensor, centre: float = 0.0
) -> None:
    """Scale the input channels of a block's projection by `factors`, and subtract `centre`.

    Args:
        factors: float32 (C,).
        centre: a value of the scaled tensor; subtracted from all of it, and given back through
            the projection's bias.
    """
    block = cast("Block", network.get_submodule(block_name))
    if isinstance(block.se, SqueezeExcitation):
        block.se = ScaledSqueezeExcitation(block.se, factors, centre)
    else:
        before = block.depthwise if isinstance(block.depthwise, ConvBnAct) else block.expand
        producer = cast("ConvBnAct", before)
        producer.act = ScaledActivation(producer.act, factors, centre)
    conv = block.project.conv
    _divide(conv, factors.view(1, -1, 1, 1))
    if centre:
        restored = conv.weight.double().sum((1, 2, 3)) * centre
        conv.bias = _parameter(_bias(conv).double() + restored)


def equalize_stream(network: EfficientNet, stage_index: int, factors: Tensor) -> None:
    """Scale the channels of what a stage's projections add up to by `factors`, float32 (C,)."""
    for name in stream_projections(network, stage_index):
        conv = cast("nn.Conv2d", layer(network, name))
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


def stream_projections(network: EfficientNet, stage_index: int) -> list[str]:
    """Names of the convolutions whose outputs add up to a stage's residual stream."""
    stage = f"stages.{stage_index}."
    return [f"{name}.project.conv" for name, _ in blocks(network) if name.startswith(stage)]


def scale_logits(network: EfficientNet, factor: float) -> None:
    """Multiply the logits by `factor`, through the classifier's weights and bias."""
    classifier = cast("nn.Linear", layer(network, CLASSIFIER))
    classifier.weight = _parameter(classifier.weight.double() * factor)
    classifier.bias = _parameter(_bias(classifier).double() * factor)


def _first_convolution(network: EfficientNet, block_name: str) -> str:
    block = network.get_submodule(block_name)
    parts = ("expand", "depthwise", "project")
    first = next(part for part in parts if isinstance(getattr(block, part), ConvBnAct))
    return f"{block_name}.{first}.conv"


def has_linear_stream(network: EfficientNet, stage_index: int) -> bool:
    """Whether nothing but additions stands between a stage's projections and their readers."""
    stage = cast("nn.Sequential", network.stages[stage_index])
    return all(isinstance(cast("Block", block).project.act, nn.Identity) for block in stage)


def _divide(conv: nn.Conv2d, factors: Tensor) -> None:
    conv.weight = _parameter(conv.weight.double() / factors.double())


def _parameter(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.float(), requires_grad=False)


def _bias(module: nn.Conv2d | nn.Linear) -> Tensor:
    if module.bias is None:
        return torch.zeros(module.weight.shape[0])
    return module.bias
