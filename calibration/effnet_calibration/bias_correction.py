"""Biases that give every layer's output its mean back, layer by layer from the first.

The squeeze-excitation gets none: with its biases corrected too, B0's KL is 0.008 instead of 0.006;
what the gate is off by in the mean, the projection's bias takes back.

Rounding and clipping move the mean of each output channel. Each layer is corrected with everything
before it quantized and corrected already (Nagel et al. 2019, "Data-free quantization through
weight equalization and bias correction", section 4.2.2, here sequentially and on pictures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from effnet_calibration.memory import HELD_BYTES
from effnet_calibration.sites import (
    CLASSIFIER,
    HEAD,
    STEM,
    blocks,
    has_classifier,
    layer,
    quantized_layers,
    squeeze_excitations,
)
from effnet_edge.model.network import ConvBnAct, EfficientNet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from effnet_edge.model.network import Block


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


@dataclass(frozen=True)
class ExactOutputs:
    """What a network gives before it is quantized, and the pictures it was given.

    Attributes:
        batches: normalized pictures, float32 (n, 3, R, R) each.
        means: of every corrected layer's output channels, by layer name, float64 (C,).
        logits: float32 (N, classes); (0, 0) for a network without a classifier.
    """

    batches: tuple[Tensor, ...]
    means: dict[str, Tensor]
    logits: Tensor

    @classmethod
    def of(cls, network: EfficientNet, batches: Iterable[Tensor]) -> ExactOutputs:
        """Pass the pictures through the network."""
        with OutputCollector(network) as collector, torch.inference_mode():
            for batch in batches:
                collector.offer(batch)
                network(batch.contiguous(memory_format=torch.channels_last))
        return collector.outputs()


class OutputCollector:
    """Watches a network's outputs while the pictures pass; a context manager for its hooks.

    Args:
        limit: pictures to watch at most, in whole batches, but the first batch in any case.
    """

    def __init__(self, network: EfficientNet, limit: int | None = None) -> None:
        self._network = network
        self._limit = limit
        self._watching = False
        self._images = 0
        self._batches: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._totals: dict[str, Tensor] = {}
        self._positions: dict[str, int] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> OutputCollector:
        for name in corrected_layers(self._network):
            hook = self._hook(name)
            self._handles.append(layer(self._network, name).register_forward_hook(hook))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def offer(self, batch: Tensor) -> None:
        """Watch this batch, float32 (n, 3, R, R), if there is room; the network gets it next."""
        full = self._limit is not None and self._images + len(batch) > self._limit
        self._watching = not (full and self._batches)
        if self._watching:
            self._batches.append(batch)
            self._images += len(batch)

    def outputs(self) -> ExactOutputs:
        """What was seen."""
        logits = torch.cat(self._logits) if self._logits else torch.empty(0, 0)
        means = {name: total / self._positions[name] for name, total in self._totals.items()}
        return ExactOutputs(tuple(self._batches), means, logits)

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def add(_: nn.Module, __: tuple[Tensor], output: Tensor) -> None:
            if not self._watching:
                return
            self._totals[name] = self._totals.get(name, 0) + _channel_sum(output)
            self._positions[name] = self._positions.get(name, 0) + _positions(output)
            if name == CLASSIFIER:
                self._logits.append(output)

        return add


def corrected_layers(network: EfficientNet) -> list[str]:
    """Names of the layers whose biases are corrected, in the order of execution."""
    gates = squeeze_excitations(network)
    return [name for name in quantized_layers(network) if name not in gates]


@torch.inference_mode()
def correct_biases(
    exact: ExactOutputs,
    simulated: EfficientNet,
    on_layer: Callable[[str], None] = lambda _: None,
    held_bytes: int = HELD_BYTES,
) -> Correction:
    """Correct `simulated` in place, and tell what was added.

    Args:
        exact: of the network before quantization, whose outputs are scaled as the simulated one's.
        simulated: the same network with quantized inputs and weights.
        on_layer: called with each layer's name before it is corrected.
        held_bytes: room for all pictures' activations at one depth. Where one does not fit, it is
            computed again from the last one that did.
    """
    flow = _Flow(simulated, exact.batches, held_bytes)
    biases = {}
    for name in corrected_layers(simulated):
        on_layer(name)
        biases[name] = flow.correct(name, exact.means[name])
    outputs = flow.finish()
    weighs = simulated.output_kind == "single-label"
    gain = _gain(exact.logits, outputs) if weighs else 1.0
    return Correction(biases, gain, len(outputs))


@dataclass(frozen=True)
class _Step:
    """A corrected layer, and what follows it up to the next.

    Attributes:
        after: modules that its output passes.
        closes: whether the shortcut is then added.
        opens: whether the result is the next block's shortcut.
    """

    layer: nn.Module
    after: tuple[nn.Module, ...]
    closes: bool = False
    opens: bool = False


class _Held(NamedTuple):
    """One batch somewhere in the network, and the shortcut that is still to be added."""

    value: Tensor
    shortcut: Tensor | None

    @property
    def bytes(self) -> int:
        return 4 * (self.value.numel() + (0 if self.shortcut is None else self.shortcut.numel()))


class _Flow:
    """All pictures on their way through the quantized network, held before one of its layers."""

    def __init__(self, network: EfficientNet, batches: tuple[Tensor, ...], held_bytes: int) -> None:
        self._network = network
        self._steps = _steps(network)
        self._names = list(self._steps)
        self._room = held_bytes
        self._images = sum(len(batch) for batch in batches)
        self._held = [
            _Held(batch.contiguous(memory_format=torch.channels_last), None) for batch in batches
        ]
        self._before = 0

    def correct(self, name: str, mean: Tensor) -> Tensor:
        """Give the layer's output that mean, and tell what its bias lacked: float32 (C,)."""
        index = self._names.index(name)
        total, positions, fits = torch.zeros_like(mean), 0, True
        for number, held in enumerate(self._held):
            at = self._passed(held, self._before, index)
            output = _Held(self._steps[name].layer(at.value), at.shortcut)
            total += _channel_sum(output.value)
            positions += _positions(output.value)
            if number == 0:
                fits = output.bytes * self._images <= self._room * len(output.value)
            if fits:
                self._held[number] = output
        added = (mean - total / positions).float()
        self._add_bias(name, added)
        if fits:
            self._before = index + 1
            self._leave(self._steps[name], added)
        return added

    def finish(self) -> Tensor:
        """The quantized and corrected network's outputs, float32 (N, classes or features)."""
        ends = [self._passed(held, self._before, len(self._names)) for held in self._held]
        return torch.cat([end.value for end in ends])

    def _leave(self, step: _Step, added: Tensor) -> None:
        """Take what is held, the layer's outputs without their correction, to the next layer."""
        for number, (output, shortcut) in enumerate(self._held):
            corrected = output.add_(added.view(1, -1, *[1] * (output.dim() - 2)))
            self._held[number] = _after(step, _Held(corrected, shortcut))

    def _passed(self, held: _Held, start: int, stop: int) -> _Held:
        for name in self._names[start:stop]:
            step = self._steps[name]
            held = _after(step, _Held(step.layer(held.value), held.shortcut))
        return held

    def _add_bias(self, name: str, added: Tensor) -> None:
        module = layer(self._network, name)
        bias = cast("Tensor", module.bias) + added
        module.bias = nn.Parameter(bias, requires_grad=False)


def _after(step: _Step, output: _Held) -> _Held:
    value, shortcut = output
    for module in step.after:
        value = module(value)
    if step.closes:
        value, shortcut = value + cast("Tensor", shortcut), None
    return _Held(value, value if step.opens else shortcut)


def _steps(network: EfficientNet) -> dict[str, _Step]:
    """By layer name, in the order of execution."""
    all_blocks = list(blocks(network))
    opens = [block.has_shortcut for _, block in all_blocks] + [False]
    steps = {STEM: _Step(network.stem.conv, (network.stem.act,), opens=opens[0])}
    for (name, block), next_opens in zip(all_blocks, opens[1:], strict=True):
        steps |= _block_steps(name, block, next_opens)
    steps[HEAD] = _Step(network.head.conv, (network.head.act, network.pool))
    if has_classifier(network):
        steps[CLASSIFIER] = _Step(network.classifier, ())
    return steps


def _block_steps(name: str, block: Block, next_opens: bool) -> dict[str, _Step]:
    parts = {part: getattr(block, part) for part in ("expand", "depthwise", "project")}
    parts = {part: module for part, module in parts.items() if isinstance(module, ConvBnAct)}
    *inner, last = parts
    steps = {}
    for part in inner:
        gate = (block.se,) if part == inner[-1] else ()
        steps[f"{name}.{part}.conv"] = _Step(parts[part].conv, (parts[part].act, *gate))
    project = parts[last]
    steps[f"{name}.{last}.conv"] = _Step(
        project.conv, (project.act,), closes=block.has_shortcut, opens=next_opens
    )
    return steps


def _channel_sum(values: Tensor) -> Tensor:
    """Float64 (C,)."""
    if values.dim() == 2:
        return values.double().sum(0)
    return values.sum((2, 3)).double().sum(0)


def _positions(values: Tensor) -> int:
    return values.numel() // values.shape[1]


def _gain(exact: Tensor, quantized: Tensor) -> float:
    exact, quantized = (
        each.double() - each.double().mean(1, keepdim=True) for each in (exact, quantized)
    )
    energy = float(exact.square().sum())
    gain = float((exact * quantized).sum()) / energy if energy > 0 else 1.0
    return gain if gain > 0 else 1.0
