"""A table applied to a network: everything that a writer of integer graphs needs."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from effnet_calibration.equalization import (
    equalize_depthwise,
    equalize_projection,
    equalize_stream,
    scale_logits,
)
from effnet_calibration.errors import CalibrationError
from effnet_calibration.integer_weights import QuantizedWeight
from effnet_calibration.pixel_stem import PixelStem
from effnet_calibration.schemes import QuantizationScheme, TensorQuantization, get_scheme
from effnet_calibration.sites import (
    STEM,
    channels_last,
    depthwise_convolutions,
    last_projection,
    layer,
    quantized_layers,
    sites,
    squeeze_excitations,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from effnet_calibration.table import CalibrationTable, Quantization
    from effnet_edge.model.network import EfficientNet


@dataclass(frozen=True)
class QuantizedNetwork:
    """A network and the grids of its tensors.

    Attributes:
        network: folded, equalized and bias-corrected, in float32. Its modules have the original's
            names; equalization put `ScaledActivation` and `ScaledSqueezeExcitation` in some places.
        scheme: of the activations.
        inputs: the grid of each quantized layer's input, by layer name. The stem has none: its
            input are 8-bit pixels already.
        weights: of every layer in `inputs`. Neither holds the layers that the scheme leaves alone.
        pixel_stem: the stem that reads pixels; None where the stem is in floating point.
    """

    network: EfficientNet
    scheme: QuantizationScheme
    inputs: Mapping[str, TensorQuantization]
    weights: Mapping[str, QuantizedWeight]
    pixel_stem: PixelStem | None = None

    def reading_floats(self) -> QuantizedNetwork:
        """The same for normalized input: its stem, then in floating point, has no integers."""
        return replace(self, pixel_stem=None)

    def simulated(self) -> EfficientNet:
        """A copy that computes in float32 what the integer graph does, up to summation order."""
        network = channels_last(self.with_rounded_weights())
        for name, grid in self.inputs.items():
            layer(network, name).register_forward_pre_hook(_fake_quantize_input(grid))
        return network

    def with_rounded_weights(self) -> EfficientNet:
        """A copy whose weights are on their grids, and whose activations are as they come."""
        network = copy.deepcopy(self.network)
        for name, weight in self.weights.items():
            layer(network, name).weight.data.copy_(weight.dequantized())
        if self.pixel_stem is not None:
            self.pixel_stem.simulate_in(network)
        return network


def apply(
    network: EfficientNet, table: CalibrationTable, scheme: QuantizationScheme
) -> QuantizedNetwork:
    """Quantize a folded network by a table: the same table and weights, the same bits.

    Raises:
        CalibrationError: the table is another network's, or has no part for the scheme.
    """
    table.check_model(network)
    return apply_quantization(network, table.quantization(scheme.name))


def apply_quantization(network: EfficientNet, quantization: Quantization) -> QuantizedNetwork:
    """Quantize a folded network by one scheme's part of its own table.

    Raises:
        CalibrationError: the part does not fit the network.
    """
    scheme = get_scheme(quantization.scheme)
    changed = equalized(network, quantization)
    for name, added in quantization.biases.items():
        _add_bias(changed, name, added)
    if quantization.logit_gain != 1:
        scale_logits(changed, 1 / quantization.logit_gain)
    kept = set(quantization.kept)
    if not scheme.quantizes_gates:
        kept |= squeeze_excitations(changed)
    if not scheme.quantizes_depthwise:
        kept |= depthwise_convolutions(changed)
    if not scheme.quantizes_last_projection:
        kept.add(last_projection(changed))
    inputs = {}
    for site in sites(changed):
        if site.name in kept:
            continue
        entry = quantization.tensors.get(site.name)
        if entry is None:
            raise CalibrationError(f"the calibration table lacks {site.name}: calibrate again")
        inputs[site.name] = scheme.on_grid(entry.scale, entry.zero_point)
    weights = {
        name: QuantizedWeight.of(module.weight.detach(), scheme.weight_limit)
        for name, module in quantized_layers(changed).items()
        if name in inputs
    }
    pixel_stem = None
    if quantization.pixels is not None and STEM not in kept:
        pixel_stem = PixelStem.of(changed, quantization.pixels, scheme.weight_limit)
    for block, centre in quantization.centres.items():
        _restore_centre(changed, f"{block}.project.conv", centre, weights)
    return QuantizedNetwork(changed, scheme, inputs, weights, pixel_stem)


def equalized(network: EfficientNet, quantization: Quantization) -> EfficientNet:
    """A copy with the table's factors and centres, which computes the same.

    Raises:
        CalibrationError: the factors do not fit the network.
    """
    changed = copy.deepcopy(network)
    try:
        for stage, factors in quantization.stream.items():
            equalize_stream(changed, int(stage), torch.tensor(factors))
        for block, factors in quantization.depthwise.items():
            equalize_depthwise(changed, block, torch.tensor(factors))
        for block, factors in quantization.projection.items():
            centre = quantization.centres.get(block, 0.0)
            equalize_projection(changed, block, torch.tensor(factors), centre)
    except (RuntimeError, AttributeError, ValueError) as error:
        raise CalibrationError(
            f"the calibration table's factors do not fit the network: {error}"
        ) from error
    return changed


def _add_bias(network: EfficientNet, name: str, added: tuple[float, ...]) -> None:
    module = layer(network, name)
    if module.bias is None or module.bias.shape[0] != len(added):
        raise CalibrationError(f"the calibration table's bias of {name} does not fit the network")
    module.bias = _parameter(module.bias + torch.tensor(added))


def _restore_centre(
    network: EfficientNet, name: str, centre: float, weights: Mapping[str, QuantizedWeight]
) -> None:
    """Let the bias give back what the rounded weights, not the exact ones, lose with the centre."""
    if name not in weights:
        return
    module = layer(network, name)
    bias = cast("Tensor", module.bias)
    lost = (module.weight.double() - weights[name].dequantized().double()).flatten(1).sum(1)
    module.bias = _parameter((bias - lost * centre).float())


def _parameter(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


def _fake_quantize_input(
    grid: TensorQuantization,
) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
    def hook(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (grid.fake_quantize(inputs[0]),)

    return hook
