"""Weights refitted by least squares: a layer takes back what those before it are off by.

A layer of a quantized network reads something else than it was trained on. Its weights and its
bias are moved so that it gives, as nearly as it can, what the network itself gives at that place;
only then are they rounded. Layer by layer from the first, each with everything before it changed,
rounded and refitted already. Of a deep layer, with more weights than the pictures have to tell
about them, everything stays.

Where inputs alone are rounded, and every activation is the network's own, there is hardly anything
to take back (docs/figures.md, "Refitted weights"), and all stays, too: so with every layer kept in
16 bit it is the network itself.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from effnet_calibration.errors import CalibrationError
from effnet_calibration.flow import Held, after, computed, held_pictures
from effnet_calibration.integer_weights import QuantizedWeight
from effnet_calibration.least_squares import Change, LeastSquares
from effnet_calibration.output_scales import AS_IT_IS, output_scales
from effnet_calibration.path import STEM, frozen, frozen_as
from effnet_calibration.quantization import ACTIVATIONS, REFITTED
from effnet_calibration.work import Step

if TYPE_CHECKING:
    from effnet_calibration.path import Layer, Linear, NetworkPath
    from effnet_calibration.quantization import Numbers, Quantization
    from effnet_calibration.work import Work
    from effnet_edge.model.network import EfficientNet, PaddedConv2d

REFITTING = "weights"

PICTURES = 100
HELD_MAPS = 2.5
"""How many of the largest maps a picture takes at most: what the network and the quantized one give
at an expansion, and what the quantized one reads there."""


def encoded(change: Change) -> str:
    """A change as a table holds it: all weights, then the biases, as FP16 in base64."""
    numbers = torch.cat([change.weights.flatten(), change.biases]).numpy()
    return base64.b64encode(numbers.astype("<f2").tobytes()).decode("ascii")


def decoded(text: Numbers, module: Linear) -> Change:
    """Read what a table holds.

    Raises:
        CalibrationError: it is no such text, not finite, or of another layer.
    """
    weight = module.weight
    try:
        read = np.frombuffer(base64.b64decode(cast("str", text), validate=True), "<f2")
    except (binascii.Error, TypeError, ValueError):
        raise CalibrationError("the calibration table's refitted weights are damaged") from None
    numbers = torch.from_numpy(read.astype(np.float32))
    if len(numbers) != weight.numel() + len(weight):
        raise CalibrationError("the calibration table's refitted weights do not fit the network")
    if not bool(torch.isfinite(numbers).all()):
        raise CalibrationError("the calibration table has refitted weights that are not finite")
    return Change(numbers[: weight.numel()].view_as(weight), numbers[weight.numel() :])


def refit(network: EfficientNet, _: NetworkPath, layer: Layer, text: Numbers) -> None:
    """Move a layer's weights and biases by what a table holds."""
    module = layer.module(network)
    change = decoded(text, module)
    module.weight = frozen_as(module.weight + change.weights, module.weight)
    module.bias = frozen(cast("Tensor", module.bias) + change.biases)


@torch.inference_mode()
def refitted(work: Work, quantization: Quantization) -> dict[str, Numbers]:
    """What each layer is moved by, by its name; those that gain nothing are missing.

    The classifier stays: it has too many weights for what the pictures tell.
    """
    flow = _Flow(work, quantization)
    layers = [layer for layer in work.path.main if layer.kind != "classifier"]
    found: dict[str, Numbers] = {}
    for number, layer in enumerate(layers):
        work.progress(REFITTING, number, len(layers))
        text = flow.pass_layer(layer)
        if text is not None:
            found[layer.name] = text
    work.progress(REFITTING, len(layers), len(layers))
    return found


def _decide(work: Work, quantization: Quantization) -> Quantization:
    errs = work.scheme.rounds_outputs or quantization.changes(ACTIVATIONS)
    if not (work.settings.refit_weights and errs):
        return quantization
    return quantization.changing(REFITTED, refitted(work, quantization))


STEP = Step(_decide, {REFITTED: refit}, in_floats=True)


class _Flow:
    """The same pictures before one layer of the network itself, and of the quantized one."""

    def __init__(self, work: Work, quantization: Quantization) -> None:
        applied = work.apply(quantization)
        self._exact = work.network
        self._applied = applied
        self._simulated = applied.simulated()
        self._scales = output_scales(quantization, work.path)
        self._rounds, self._limit = work.scheme.rounds, work.scheme.weight_limit
        held = list(held_pictures(work.network, work.exact.batches, PICTURES, HELD_MAPS))
        self._exact_held, self._held = held, list(held)
        self._pictures = sum(len(each.value) for each in held)
        self._chance = torch.Generator().manual_seed(0)

    def pass_layer(self, layer: Layer) -> Numbers | None:
        """Refit a layer, take all pictures through it, and tell what it was moved by."""
        for number, exact in enumerate(self._exact_held):
            self._exact_held[number] = computed(self._exact, layer, exact)
        # The stem reads the pictures themselves.
        text = None if layer.name == STEM else self._refit(layer)
        for number, (exact, held) in enumerate(zip(self._exact_held, self._held, strict=True)):
            output = computed(self._simulated, layer, held)
            self._held[number] = after(self._simulated, layer, output)
            self._exact_held[number] = after(self._exact, layer, exact)
        return text

    def _refit(self, layer: Layer) -> Numbers | None:
        module = cast("PaddedConv2d", layer.module(self._applied.network))
        squares = self._seen(layer, module)
        change = squares.change()
        text = None if change is None else encoded(change)
        if text is not None:
            # What the table holds, to the last bit.
            change = decoded(text, module)
            weight, lacking = module.weight + change.weights, change.biases
        else:
            weight, lacking = module.weight, torch.zeros(len(module.weight))
        if self._rounds:
            # What the biases are corrected by later is done here at once, for the layers behind.
            weight = self._rounded(layer, weight)
            lacking = squares.mean_lacking(weight)
        simulated = layer.module(self._simulated)
        simulated.weight.data.copy_(weight)
        simulated.bias = frozen(cast("Tensor", module.bias) + lacking)
        return text

    def _seen(self, layer: Layer, module: PaddedConv2d) -> LeastSquares:
        """What the layer reads, and what it should make of it."""
        pixels = self._exact_held[0].value[0, 0].numel()
        squares = LeastSquares(module, self._pictures, pixels)
        grid = self._applied.inputs.get(layer.name)
        for exact, held in zip(self._exact_held, self._held, strict=True):
            at = squares.places(self._chance)
            read = held.value if grid is None else grid.fake_quantize(held.value)
            squares.offer(read, at, self._targets(layer, exact, held, at))
        return squares

    def _targets(self, layer: Layer, exact: Held, held: Held, at: Tensor) -> Tensor:
        """What the network itself gives, as the quantized one has it scaled: float32 (N, O, S).

        With what the shortcut that is added to it is off by.
        """
        factors, shifts = (
            each.float().view(-1, 1) for each in self._scales.get(layer.name, AS_IT_IS)
        )
        targets = exact.value.flatten(2)[:, :, at] * factors + shifts
        if layer.closes and layer.activation is None:
            exactly, ours = (
                cast("Tensor", each.shortcut).flatten(2)[:, :, at] for each in (exact, held)
            )
            targets = targets + (exactly * factors - ours)
        return targets

    def _rounded(self, layer: Layer, weight: Tensor) -> Tensor:
        if layer.name not in self._applied.weights:
            return weight
        return QuantizedWeight.of(weight, self._limit).dequantized()
