"""Biases that give every layer's output its mean back, layer by layer from the first.

The squeeze-excitation gets none: with its biases corrected too, B0's KL is 0.008 instead of 0.006;
what the gate is off by in the mean, the projection's bias takes back.

Rounding and clipping move the mean of each output channel. Each layer is corrected with everything
before it quantized and corrected already (Nagel et al. 2019, "Data-free quantization through
weight equalization and bias correction", section 4.2.2, here sequentially and on pictures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from effnet_calibration.sites import CLASSIFIER, HEAD, STEM, blocks, has_classifier, layer
from effnet_edge.model.network import Block, ConvBnAct, EfficientNet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CACHE_BYTES = 2 << 30
FEWEST_IMAGES = 8


@dataclass(frozen=True)
class Correction:
    """What was found: biases to add by layer name, float32 (C,), and the logits' gain.

    `logit_gain` is the slope of the quantized logits over the exact ones, each image's logits
    less their mean: what is left of the spread. 1 where there is nothing to compare, and where no
    softmax weighs the logits of an image against each other.
    """

    biases: dict[str, Tensor]
    logit_gain: float
    images: int


def images_in_memory(network: EfficientNet, cache_bytes: int = CACHE_BYTES) -> int:
    """How many pictures' activations fit: two networks' largest pair of tensors between layers."""
    side = -(-network.resolution // 2)
    largest = network.stem.conv.out_channels * side * side
    for _, block in blocks(network):
        channels = block.project.conv.in_channels + block.project.conv.out_channels
        for part in (block.expand, block.depthwise, block.project):
            if isinstance(part, ConvBnAct):
                side = -(-side // part.conv.stride[0])
        largest = max(largest, channels * side * side)
    return max(FEWEST_IMAGES, cache_bytes // (2 * 4 * largest))


@torch.inference_mode()
def correct_biases(
    reference: EfficientNet,
    simulated: EfficientNet,
    batches: Iterable[Tensor],
    on_layer: Callable[[str], None] = lambda _: None,
) -> Correction:
    """Correct `simulated` in place, and tell what was added.

    Args:
        reference: the network before quantization.
        simulated: the same with quantized inputs and weights.
        batches: normalized pictures, float32 (N, 3, R, R); all their activations at one depth are
            held at once, see `images_in_memory`.
        on_layer: called with each layer's name before it is corrected.
    """
    flow = _Flow(reference, simulated, list(batches), on_layer)
    flow.correct(STEM, "stem")
    for name, block in blocks(reference):
        _through_block(flow, name, block)
    flow.correct(HEAD, "head")
    flow.step("pool")
    if has_classifier(reference):
        flow.correct(CLASSIFIER, CLASSIFIER)
    gain = _gain(flow.pairs) if reference.output_kind == "single-label" else 1.0
    return Correction(flow.biases, gain, sum(len(a) for a, _ in flow.pairs))


class _Flow:
    """The same pictures on their way through both networks: pairs (exact, quantized)."""

    def __init__(
        self,
        reference: EfficientNet,
        simulated: EfficientNet,
        batches: list[Tensor],
        on_layer: Callable[[str], None],
    ) -> None:
        self._networks = (reference, simulated)
        self._on_layer = on_layer
        batches = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]
        self.pairs = [(batch, batch) for batch in batches]
        self.biases: dict[str, Tensor] = {}

    def step(self, module_name: str) -> None:
        """Take every pair through one module of each network."""
        exact, quantized = (network.get_submodule(module_name) for network in self._networks)
        for index, (a, b) in enumerate(self.pairs):
            self.pairs[index] = (exact(a), quantized(b))

    def correct(self, layer_name: str, module_name: str) -> None:
        """Correct a layer, and take every pair through the module that ends with its activation."""
        self._on_layer(layer_name)
        self.step(layer_name)
        added = sum(_channel_sum(a) - _channel_sum(b) for a, b in self.pairs)
        added = (cast("Tensor", added) / sum(_positions(a) for a, _ in self.pairs)).float()
        module = layer(self._networks[1], layer_name)
        module.bias = nn.Parameter(cast("Tensor", module.bias) + added, requires_grad=False)
        self.biases[layer_name] = added
        shape = (1, -1, *[1] * (self.pairs[0][0].dim() - 2))
        acts = [_activation(network.get_submodule(module_name)) for network in self._networks]
        for index, (a, b) in enumerate(self.pairs):
            self.pairs[index] = (acts[0](a), acts[1](b.add_(added.view(shape))))


def _through_block(flow: _Flow, name: str, block: Block) -> None:
    shortcut = list(flow.pairs) if block.has_shortcut else None
    if isinstance(block.expand, ConvBnAct):
        flow.correct(f"{name}.expand.conv", f"{name}.expand")
    if isinstance(block.depthwise, ConvBnAct):
        flow.correct(f"{name}.depthwise.conv", f"{name}.depthwise")
    flow.step(f"{name}.se")
    flow.correct(f"{name}.project.conv", f"{name}.project")
    if shortcut is not None:
        for index, ((a, b), (x, y)) in enumerate(zip(flow.pairs, shortcut, strict=True)):
            flow.pairs[index] = (a.add_(x), b.add_(y))


def _activation(module: nn.Module) -> nn.Module:
    return module.act if isinstance(module, ConvBnAct) else nn.Identity()


def _channel_sum(values: Tensor) -> Tensor:
    if values.dim() == 2:
        return values.double().sum(0)
    return values.sum((2, 3)).double().sum(0)


def _positions(values: Tensor) -> int:
    return values.numel() // values.shape[1]


def _gain(pairs: list[tuple[Tensor, Tensor]]) -> float:
    exact, quantized = (torch.cat(side).double() for side in zip(*pairs, strict=True))
    exact, quantized = (each - each.mean(1, keepdim=True) for each in (exact, quantized))
    energy = float(exact.square().sum())
    gain = float((exact * quantized).sum()) / energy if energy > 0 else 1.0
    return gain if gain > 0 else 1.0
