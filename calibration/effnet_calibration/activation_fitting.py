"""The SiLUs of the largest feature maps replaced by hard-swishes, which an engine computes faster.

Each is fitted in the order of the network, with all before it replaced already, to what the
network itself gives at that place: what the ones before are off by, the next one takes into
account. The squeeze-excitation keeps its SiLU: it is small, and every channel hangs on it.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

from effnet_calibration.equalization import multiply_in_gate
from effnet_calibration.errors import CalibrationError
from effnet_calibration.fitted_activation import (
    FittedActivation,
    HardSwishFit,
    slopes_of_channels,
)
from effnet_calibration.flow import Held, after, computed, held_pictures
from effnet_calibration.hard_swish_fit import Pairs, fit
from effnet_calibration.memory import output_size
from effnet_calibration.path import frozen, frozen_as, multiply_inputs
from effnet_calibration.quantization import ACTIVATIONS, SLOPES, shortest
from effnet_calibration.work import Step

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from effnet_calibration.path import Layer, NetworkPath
    from effnet_calibration.quantization import Numbers, Quantization
    from effnet_calibration.work import Work
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.progress import Progress

FITTING = "activations"

SHARE = 0.9
"""Of all values that pass a SiLU on the main path. The rest would gain little time: these are the
last stages' maps, where the loss grows fastest (22 of B0's 33 are 89 %)."""

PLAIN_SHARE = 0.34
"""Of all values, the first pass a hard-swish without a slope: there it gains nothing, as those
behind take back what it is off by (docs/figures.md, "Behind a slope")."""

PICTURES = 100
HELD_MAPS = 4
"""A picture takes: two networks, each with a layer's input and its output."""
SAMPLES = 51200
"""A channel. Of fewer, what the rare large values should become is known too little
(docs/figures.md, "Fitted hard-swishes")."""


def sites(network: EfficientNet, path: NetworkPath, share: float = SHARE) -> list[Layer]:
    """The layers whose SiLU is replaced: from the first on, up to that share of all values."""
    if network.activation != "silu":
        return []
    active = [layer for layer in path.main if layer.activation is not None]
    sizes = [output_size(network, layer) for layer in active]
    found, total = [], 0
    for layer, size in zip(active, sizes, strict=True):
        total += size
        if total > share * sum(sizes):
            break
        found.append(layer)
    return found


def bent_sites(network: EfficientNet, path: NetworkPath, layers: Iterable[Layer]) -> list[Layer]:
    """Those of them whose hard-swish is worth a slope: all behind the first `PLAIN_SHARE`."""
    plain = sites(network, path, PLAIN_SHARE)
    return [layer for layer in layers if layer not in plain]


class FittedNumbers(NamedTuple):
    """By layer name: hard-swishes, as `HardSwishFit.of` reads them, and the slopes of some."""

    activations: dict[str, Numbers]
    slopes: dict[str, Numbers]


@torch.inference_mode()
def fit_activations(
    network: EfficientNet,
    path: NetworkPath,
    layers: Sequence[Layer],
    bent: Collection[Layer],
    batches: Sequence[Tensor],
    progress: Progress,
) -> FittedNumbers:
    """The numbers of these layers' hard-swishes.

    Args:
        network: folded; left as it is.
        bent: those of the layers that get slopes.
        batches: normalized pictures, float32 (n, 3, H, W); as many as fit are used.
    """
    flow = _PairedFlow(network, path, batches)
    found = FittedNumbers({}, {})
    for layer in path.main:
        done = len(found.activations)
        if done == len(layers):
            break
        progress(FITTING, done, len(layers))
        fitted = flow.pass_layer(layer, replace=layer in layers, bent=layer in bent)
        if fitted is not None:
            found.activations[layer.name], slopes = fitted
            if layer in bent:
                found.slopes[layer.name] = slopes
    progress(FITTING, len(layers), len(layers))
    return found


def replace_activation(
    network: EfficientNet, _: NetworkPath, layer: Layer, numbers: Numbers
) -> None:
    """Put a hard-swish in the place of a layer's SiLU; see `FittedActivation`."""
    replaced = HardSwishFit.of(numbers)
    module = layer.module(network)
    if layer.activation is None or len(replaced.b) != len(module.weight):
        raise CalibrationError(
            f"the calibration table's activation of {layer.name} does not fit the network"
        )
    weight = module.weight.double() * replaced.b.view(-1, 1, 1, 1)
    bias = cast("Tensor", module.bias).double() * replaced.b + replaced.c
    module.weight = frozen_as(weight, module.weight)
    module.bias = frozen(bias)
    network.set_submodule(layer.activation, FittedActivation(replaced))


def bend_activation(network: EfficientNet, _: NetworkPath, layer: Layer, slopes: Numbers) -> None:
    """Bend a layer's hard-swish at 0; see `FittedActivation`."""
    activation = network.get_submodule(layer.activation or "")
    read = slopes_of_channels(slopes)
    if not isinstance(activation, FittedActivation) or len(read) != activation.factors.numel():
        raise CalibrationError(
            f"the calibration table's slopes of {layer.name} do not fit its activation"
        )
    activation.bend(read)


def fold_factors(
    network: EfficientNet, path: NetworkPath, names: Iterable[str], in_floats: Collection[str]
) -> None:
    """Let the layers that read these ones' hard-swishes multiply by their factors a.

    The epilogue before them then has a multiplication less, and an engine that fuses nothing into a
    convolution a pass less over each map. Where one of them rounds the map, its gate multiplies, if
    it has one. Else, and where a shortcut or who asked for features reads it, too, they stay.

    Args:
        in_floats: names of the layers that read floating point.
    """
    for name in names:
        layer = path[name]
        readers = [each for each in path if each.source == name]
        if not readers or layer.opens or layer.adds_to is not None:
            continue
        rounded = any(each.name not in in_floats for each in readers)
        if rounded and layer.gate is None:
            continue
        activation = network.get_submodule(cast("str", layer.activation))
        factors = cast("FittedActivation", activation).take_factors().double()
        if rounded:
            multiply_in_gate(network, layer, factors)
            continue
        for reader in readers:
            multiply_inputs(reader, network, factors)


def _decide(work: Work, quantization: Quantization) -> Quantization:
    if not work.settings.fitted_share or work.scheme.rounds_outputs:
        return quantization
    layers = sites(work.network, work.path, work.settings.fitted_share)
    bent = bent_sites(work.network, work.path, layers) if work.settings.bend_activations else ()
    batches = work.exact.batches
    found = fit_activations(work.network, work.path, layers, bent, batches, work.progress)
    fitted = quantization.changing(ACTIVATIONS, found.activations)
    return fitted.changing(SLOPES, found.slopes)


STEP = Step(_decide, {ACTIVATIONS: replace_activation, SLOPES: bend_activation}, in_floats=True)


class _PairedFlow:
    """The same pictures before one layer of the network itself, and of the one being changed."""

    def __init__(self, network: EfficientNet, path: NetworkPath, batches: Sequence[Tensor]) -> None:
        self._path = path
        self._exact = network
        self._changed = copy.deepcopy(network)
        self._held = [(held, held) for held in held_pictures(network, batches, PICTURES, HELD_MAPS)]
        self._chance = torch.Generator().manual_seed(0)

    def pass_layer(
        self, layer: Layer, *, replace: bool, bent: bool
    ) -> tuple[Numbers, Numbers] | None:
        """Take all pictures through one layer, and tell its new activation's numbers and slopes."""
        outputs = [
            (computed(self._exact, layer, exact), computed(self._changed, layer, changed))
            for exact, changed in self._held
        ]
        fitted = self._replace(layer, outputs, bent=bent) if replace else None
        self._held = [
            (after(self._exact, layer, exact), after(self._changed, layer, changed))
            for exact, changed in outputs
        ]
        return fitted

    def _replace(
        self, layer: Layer, outputs: list[tuple[Held, Held]], *, bent: bool
    ) -> tuple[Numbers, Numbers]:
        """Fit; the outputs of the changed network then are those of its changed layer."""
        activation = self._exact.get_submodule(cast("str", layer.activation))
        samples = SAMPLES // sum(len(exact.value) for exact, _ in outputs)
        values, targets = [], []
        for exact, changed in outputs:
            at = torch.randperm(exact.value[0, 0].numel(), generator=self._chance)[:samples]
            values.append(_channels_at(changed.value, at))
            targets.append(activation(_channels_at(exact.value, at)))
        fitted = fit(Pairs.binned(torch.cat(values, 1), torch.cat(targets, 1)), bent=bent)
        numbers, slopes = shortest(fitted.numbers.numbers), shortest(fitted.slopes)
        replace_activation(self._changed, self._path, layer, numbers)
        if bent:
            bend_activation(self._changed, self._path, layer, slopes)
        _, b, c, _ = torch.tensor(numbers).view(4, 1, -1, 1, 1)
        for _, changed in outputs:
            changed.value.mul_(b).add_(c)
        return numbers, slopes


def _channels_at(values: Tensor, positions: Tensor) -> Tensor:
    """The values at these positions, float32 (N, C, H, W) → (C, N · positions)."""
    return values.flatten(2)[:, :, positions].permute(1, 0, 2).flatten(1)
