"""Biases that give every layer's output its mean back, layer by layer from the first.

The squeeze-excitation gets none: with its biases corrected too, B0's KL is 0.008 instead of 0.006;
what the gate is off by in the mean, the projection's bias takes back.

Rounding and clipping move the mean of each output channel. Each layer is corrected with everything
before it quantized and corrected already (Nagel et al. 2019, "Data-free quantization through
weight equalization and bias correction", section 4.2.2, here sequentially and on pictures).

Where every output is rounded, and a ReLU is behind, it is the ReLU's output whose mean is given
back. Most of what goes into the last ones is below 0: with the mean of that corrected, but its
spread a little narrower than it was, less comes out, from layer to layer.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from effnet_calibration.equalized_activation import EQUALIZED
from effnet_calibration.errors import CalibrationError
from effnet_calibration.flow import Held, after, computed
from effnet_calibration.memory import HELD_BYTES
from effnet_calibration.output_scales import output_scales
from effnet_calibration.outputs import channel_sum, positions
from effnet_calibration.path import NetworkPath
from effnet_calibration.quantization import BIASES, shortest
from effnet_calibration.work import DEFAULT_SETTINGS, Settings, Step
from effnet_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from effnet_calibration.outputs import ExactOutputs
    from effnet_calibration.path import Layer
    from effnet_calibration.quantization import Numbers, Quantization
    from effnet_calibration.work import Work
    from effnet_edge.model.network import EfficientNet

CORRECTION = "bias correction"

SECANT_STEPS = 2
PROBE, FARTHEST = 0.05, 0.1
"""How far a bias is moved to see what comes of it, and at most in one step, in deviations."""
LEAST_SLOPE = 0.02


@dataclass(frozen=True)
class Correction:
    """What was found: biases to add by layer name, float32 (C,), and the logits' gain.

    `logits` are what the corrected network gives, float32 (N, classes or features), their gain
    not yet corrected. `logit_gain` is the slope of the quantized logits over the exact ones, each
    image's logits less their mean: what is left of the spread. 1 where there is nothing to compare,
    and where no softmax weighs the logits of an image against each other.
    """

    biases: dict[str, Tensor]
    logit_gain: float
    logits: Tensor


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
    for layer in NetworkPath.of(simulated).main:
        on_layer(layer.name)
        behind = exact.activation_means.get(layer.name)
        biases[layer.name] = flow.correct(layer.name, exact.means[layer.name], behind)
    outputs = flow.finish()
    weighs = simulated.output_kind == "single-label"
    gain = _gain(exact.logits, outputs) if weighs else 1.0
    return Correction(biases, gain, outputs)


def correct(
    network: EfficientNet,
    quantization: Quantization,
    exact: ExactOutputs,
    simulate: Callable[[Quantization], EfficientNet],
    settings: Settings = DEFAULT_SETTINGS,
    progress: Progress = no_progress,
) -> tuple[Quantization, Tensor]:
    """Replace a quantization's biases and gain by those that its grids and kept layers need.

    Biases that were corrected for other grids, or with other layers kept, do harm: correct again
    after every change.

    Args:
        network: folded.
        exact: the network's own, of as many pictures as `images_in_memory` says.
        simulate: as in `Work`.

    Returns:
        The quantization, and what it gives for these pictures, float32 (N, classes or features).
    """
    bare = quantization.uncorrected()
    path = NetworkPath.of(network)
    total, done = len(path.main), itertools.count()
    correction = correct_biases(
        _scaled_as(bare, path, exact),
        simulate(bare),
        lambda _: progress(CORRECTION, next(done), total),
    )
    progress(CORRECTION, total, total)
    biases = {name: shortest(added) for name, added in correction.biases.items()}
    gain = correction.logit_gain if settings.correct_gain else 1.0
    corrected = replace(bare.changing(BIASES, biases), logit_gain=gain)
    return corrected, correction.logits / gain


def _decide(work: Work, quantization: Quantization) -> Quantization:
    if not work.settings.correct_biases:
        return quantization.uncorrected()
    corrected, _ = correct(
        work.network, quantization, work.exact, work.simulate, work.settings, work.progress
    )
    return corrected


def _make(network: EfficientNet, _: NetworkPath, layer: Layer, added: Numbers) -> None:
    module, bias = layer.module(network), torch.tensor(added)
    if module.bias is None or module.bias.shape != bias.shape:
        raise CalibrationError(
            f"the calibration table's bias of {layer.name} does not fit the network"
        )
    _add_bias(module, bias)


STEP = Step(_decide, {BIASES: _make})


def _scaled_as(quantization: Quantization, path: NetworkPath, exact: ExactOutputs) -> ExactOutputs:
    """The outputs of the changed network: streams and activations scale them.

    What activations give is left of those alone whose means are to be corrected.
    """
    means = dict(exact.means)
    for name, scale in output_scales(quantization, path).items():
        means[name] = means[name] * scale.factors + scale.shifts
    behind = {
        name: exact.activation_means[name] / torch.tensor(factors, dtype=torch.float64)
        for name, factors in quantization.changes(EQUALIZED).items()
        if name in exact.activation_means
    }
    return replace(exact, means=means, activation_means=behind)


class _Flow:
    """All pictures on their way through the quantized network, held before one of its layers."""

    def __init__(self, network: EfficientNet, batches: tuple[Tensor, ...], held_bytes: int) -> None:
        self._network = network
        self._layers = NetworkPath.of(network).main
        self._names = [layer.name for layer in self._layers]
        self._room = held_bytes
        self._images = sum(len(batch) for batch in batches)
        self._held = [
            Held(batch.contiguous(memory_format=torch.channels_last), None) for batch in batches
        ]
        self._before = 0

    def correct(self, name: str, mean: Tensor, behind: Tensor | None) -> Tensor:
        """Give the layer's output a mean, and tell what its bias lacked: float32 (C,).

        Args:
            mean: of the layer's output.
            behind: of what its activation gives, which then counts; None where that does not.
        """
        index = self._names.index(name)
        layer = self._layers[index]
        total, count, fits = torch.zeros_like(mean), 0, True
        for number, held in enumerate(self._held):
            at = self._passed(held, self._before, index)
            output = computed(self._network, layer, at)
            total += channel_sum(output.value)
            count += positions(output.value)
            if number == 0:
                fits = output.bytes * self._images <= self._room * len(output.value)
            if fits:
                self._held[number] = output
        added = (mean - total / count).float()
        if behind is not None:
            added = self._corrected_behind(index, fits, added, behind)
        _add_bias(layer.module(self._network), added)
        if fits:
            self._before = index + 1
            self._leave(layer, added)
        return added

    def finish(self) -> Tensor:
        """The quantized and corrected network's outputs, float32 (N, classes or features)."""
        ends = [self._passed(held, self._before, len(self._layers)) for held in self._held]
        return torch.cat([end.value for end in ends])

    def _corrected_behind(self, index: int, fits: bool, added: Tensor, mean: Tensor) -> Tensor:
        """The bias that gives the activation's output that mean, from one that comes near it."""
        layer = self._layers[index]
        activation = self._network.get_submodule(cast("str", layer.activation))
        deviation = self._deviation(index, fits)
        probe = (PROBE * deviation).clamp_min(torch.finfo(torch.float32).eps)
        for _ in range(SECANT_STEPS):
            count, here, there = 0, torch.zeros_like(mean), torch.zeros_like(mean)
            for output in self._outputs(index, fits):
                moved = output + _per_channel(added, output)
                count += positions(output)
                there += channel_sum(activation(moved + _per_channel(probe, output)))
                here += channel_sum(activation(moved))
            slope = ((there - here) / count / probe).clamp_min(LEAST_SLOPE)
            step = ((mean - here / count) / slope).float()
            added = added + step.clamp(-FARTHEST * deviation, FARTHEST * deviation)
        return added

    def _deviation(self, index: int, fits: bool) -> Tensor:
        """Of the layer's output, float32 (C,)."""
        total, squares, count = torch.zeros(()), torch.zeros(()), 0
        for output in self._outputs(index, fits):
            total = total + channel_sum(output)
            squares = squares + channel_sum(output.square())
            count += positions(output)
        return (squares / count - (total / count).square()).clamp_min(0).sqrt().float()

    def _outputs(self, index: int, fits: bool) -> Iterator[Tensor]:
        """The layer's output for all pictures, without its correction."""
        layer = self._layers[index]
        for held in self._held:
            if fits:
                yield held.value
            else:
                at = self._passed(held, self._before, index)
                yield computed(self._network, layer, at).value

    def _leave(self, layer: Layer, added: Tensor) -> None:
        """Take what is held, the layer's outputs without their correction, to the next layer."""
        for number, (output, shortcut) in enumerate(self._held):
            corrected = output.add_(_per_channel(added, output))
            self._held[number] = after(self._network, layer, Held(corrected, shortcut))

    def _passed(self, held: Held, start: int, stop: int) -> Held:
        for layer in self._layers[start:stop]:
            held = after(self._network, layer, computed(self._network, layer, held))
        return held


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.dim() - 2))


def _add_bias(module: nn.Module, added: Tensor) -> None:
    module.bias = nn.Parameter(cast("Tensor", module.bias) + added, requires_grad=False)


def _gain(exact: Tensor, quantized: Tensor) -> float:
    exact, quantized = (
        each.double() - each.double().mean(1, keepdim=True) for each in (exact, quantized)
    )
    energy = float(exact.square().sum())
    gain = float((exact * quantized).sum()) / energy if energy > 0 else 1.0
    return gain if gain > 0 else 1.0
