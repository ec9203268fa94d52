"""The network's path: every layer in the order of execution, and how the layers hang together.

Whoever needs to know what a block is made of reads it here, and only here are modules taken apart.
A layer is a convolution or the classifier, called by its module's name. It stands for its input
tensor, too: each tensor that is quantized is the input of one layer.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from effnet_calibration.errors import CalibrationError
from effnet_edge.model.network import Block, ConvBnAct, EfficientNet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STEM = "stem.conv"
HEAD = "head.conv"
CLASSIFIER = "classifier"

LayerKind = Literal[
    "stem", "expand", "depthwise", "squeeze", "excite", "project", "head", "classifier"
]
"""`expand` is whatever mixes the channels of a block's input: an expansion, a fused convolution, or
the single one of a block that has no other. `squeeze` and `excite` are the gate's two layers."""

Linear = nn.Conv2d | nn.Linear

IN_PLACE = (nn.SiLU, nn.ReLU, nn.ReLU6)
"""Activations that can overwrite what they are given."""


@dataclass(frozen=True)
class Layer:
    """One layer of the path. It names modules and holds none: a copy of the network has the same.

    Attributes:
        name: "stages.1.0.depthwise.conv".
        block: "stages.1.0"; "stem", "head" or "classifier" outside of the stages.
        activation: name of the activation that the layer's output passes; None if it is linear.
        gate: name of the squeeze-excitation that multiplies it after that.
        pool: name of the mean over height and width that it passes last.
        source: the layer whose output, so changed, this one reads; None where it reads the pictures
            or a residual stream.
        reads, adds_to: index of the stage whose residual stream it reads, and to which it adds.
        closes: whether the block's input, its shortcut, is added to the output.
        opens: whether the result is the next block's shortcut.
    """

    name: str
    kind: LayerKind
    block: str
    activation: str | None = None
    gate: str | None = None
    pool: str | None = None
    source: str | None = None
    reads: int | None = None
    adds_to: int | None = None
    closes: bool = False
    opens: bool = False

    @property
    def in_gate(self) -> bool:
        """Whether it is one of a squeeze-excitation's two, beside the main path."""
        return self.kind in {"squeeze", "excite"}

    @property
    def after(self) -> tuple[str, ...]:
        """Names of the modules that the output passes, up to the next layer or the addition."""
        return tuple(name for name in (self.activation, self.gate, self.pool) if name)

    def module(self, network: EfficientNet) -> Linear:
        """The layer itself, in the network that was described or in a copy of it."""
        return cast("Linear", network.get_submodule(self.name))


def short_block(name: str) -> str:
    """Where a layer is: "1.0" in stages.1.0, "stem", "head", "classifier"."""
    inside = name.startswith("stages.")
    return ".".join(name.removeprefix("stages.").split(".")[: 2 if inside else 1])


class NetworkPath:
    """All layers, first to last: iterable, and by name."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._layers = {layer.name: layer for layer in layers}

    @classmethod
    def of(cls, network: EfficientNet) -> NetworkPath:
        """Describe a network, as it was built or with changes of the calibration in it."""
        return cls(_layers(network))

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers.values())

    def __getitem__(self, name: str) -> Layer:
        return self._layers[name]

    def __contains__(self, name: object) -> bool:
        return name in self._layers

    @property
    def names(self) -> list[str]:
        """Of every layer with 8-bit weights."""
        return list(self._layers)

    @property
    def inputs(self) -> list[Layer]:
        """The layers whose input has a grid: all but the stem, which reads 8-bit pixels."""
        return [layer for layer in self if layer.kind != "stem"]

    @property
    def main(self) -> list[Layer]:
        """The layers that are not in a gate."""
        return [layer for layer in self if not layer.in_gate]

    @property
    def blocks(self) -> list[str]:
        """Names of the stages' blocks."""
        return list(dict.fromkeys(layer.block for layer in self if layer.block.count(".")))

    def by_part(self, layers: Iterable[Layer]) -> dict[str, list[Layer]]:
        """Those of `layers` in each of the modules that take the pictures to the answers, in order.

        A block's own name is that of its module.
        """
        found: dict[str, list[Layer]] = {
            part: [] for part in ("stem", *self.blocks, "head", "pool", "classifier")
        }
        for layer in layers:
            found[layer.block].append(layer)
        return found

    @property
    def streams(self) -> list[int]:
        """Indices of the stages, each of which has a residual stream."""
        return sorted({layer.adds_to for layer in self if layer.adds_to is not None})

    def of_kind(self, kind: LayerKind) -> list[Layer]:
        """The layers of one kind."""
        return [layer for layer in self if layer.kind == kind]

    def reader(self, layer: Layer) -> Layer:
        """The layer on the main path that reads this one's output."""
        return next(each for each in self.main if each.source == layer.name)

    def stream_readers(self, stage: int) -> list[Layer]:
        """The layers that read a stage's residual stream."""
        return [layer for layer in self if layer.reads == stage]

    def stream_projections(self, stage: int) -> list[Layer]:
        """The layers whose outputs add up to a stage's residual stream."""
        return [layer for layer in self if layer.adds_to == stage]

    def has_linear_stream(self, stage: int) -> bool:
        """Whether nothing but additions stands between a stage's projections and its readers."""
        return all(layer.activation is None for layer in self.stream_projections(stage))

    def last_projection(self) -> Layer:
        """The layer that ends the last block."""
        return self.stream_projections(self.streams[-1])[-1]


def _layers(network: EfficientNet) -> Iterator[Layer]:
    blocks = [
        (stage, f"stages.{stage}.{index}", cast("Block", block))
        for stage, each in enumerate(network.stages)
        for index, block in enumerate(cast("nn.Sequential", each))
    ]
    opens = [block.has_shortcut for _, _, block in blocks] + [False]
    yield Layer(STEM, "stem", "stem", "stem.act", opens=opens[0])
    reads: int | None = None
    for (stage, name, block), next_opens in zip(blocks, opens[1:], strict=True):
        yield from _block_layers(name, block, stage, reads, next_opens)
        reads = stage
    yield Layer(HEAD, "head", "head", "head.act", pool="pool", reads=reads)
    if isinstance(network.classifier, nn.Linear):
        yield Layer(CLASSIFIER, "classifier", "classifier", source=HEAD)


def _block_layers(
    name: str, block: Block, stage: int, reads: int | None, next_opens: bool
) -> Iterator[Layer]:
    """Of a block that reads that stage's stream, or the stem where it reads none."""
    gate = None if isinstance(block.se, nn.Identity) else f"{name}.se"
    source = STEM if reads is None else None
    inner = [
        part for part in ("expand", "depthwise") if isinstance(getattr(block, part), ConvBnAct)
    ]
    for part in inner:
        conv = f"{name}.{part}.conv"
        kind: LayerKind = "expand" if part == "expand" else "depthwise"
        its_gate = gate if part == inner[-1] else None
        activation = f"{name}.{part}.act"
        yield Layer(conv, kind, name, activation, its_gate, source=source, reads=reads)
        source, reads = conv, None
    if gate:
        yield Layer(f"{gate}.reduce", "squeeze", name, f"{gate}.act", source=source)
        yield Layer(f"{gate}.expand", "excite", name, f"{gate}.gate", source=f"{gate}.reduce")
    linear = isinstance(block.project.act, nn.Identity)
    yield Layer(
        f"{name}.project.conv",
        "project" if inner else "expand",
        name,
        None if linear else f"{name}.project.act",
        source=source,
        reads=reads,
        adds_to=stage,
        closes=block.has_shortcut,
        opens=next_opens,
    )


def channels_last(network: EfficientNet) -> EfficientNet:
    """A copy whose weights lie as the CPU's convolutions are fastest, and whose activations save
    the time and the memory of a second tensor.
    """
    fast = copy.deepcopy(network)
    for module in fast.modules():
        if isinstance(module, IN_PLACE):
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
    for name, tensor in network.tensors().items():
        if not bool(torch.isfinite(tensor).all()):
            raise CalibrationError(
                f"the weights hold NaN or infinity in {name}: this network cannot be quantized"
            )


def input_channel_energy(reader: Linear) -> Tensor:
    """Σ w² over all weights that multiply each input channel, float32 (input channels,).

    How much of an error in the channel reaches the layer's output.
    """
    weight = reader.weight.detach().flatten(1)
    if isinstance(reader, nn.Conv2d) and reader.groups > 1:
        return weight.square().sum(1)
    return weight.view(weight.shape[0], reader.weight.shape[1], -1).square().sum((0, 2))


def frozen(values: Tensor) -> nn.Parameter:
    """A float32 parameter of these values, which no training changes."""
    return nn.Parameter(values.float(), requires_grad=False)


def frozen_as(values: Tensor, weight: Tensor) -> nn.Parameter:
    """The same, laid out in memory as another weight is."""
    last = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    memory = torch.channels_last if last else torch.contiguous_format
    return frozen(values.float().contiguous(memory_format=memory))


def multiply_inputs(layer: Layer, network: EfficientNet, factors: Tensor) -> None:
    """Multiply the weights with which a layer reads each channel by its factor, float64 (C,)."""
    module = layer.module(network)
    shape = [1] * module.weight.dim()
    shape[0 if layer.kind == "depthwise" else 1] = -1
    module.weight = frozen(module.weight.double() * factors.view(shape))
