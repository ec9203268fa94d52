"""What a quantization makes of a network."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from effnet_calibration.path import channels_last
from effnet_calibration.rounded_outputs import round_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from effnet_calibration.integer_weights import QuantizedWeight
    from effnet_calibration.pixel_stem import PixelStem
    from effnet_calibration.schemes import QuantizationScheme, TensorQuantization
    from effnet_edge.model.network import EfficientNet


@dataclass(frozen=True)
class QuantizedNetwork:
    """A network and the grids of its tensors.

    Attributes:
        network: folded, equalized and bias-corrected, in float32. Its modules have the original's
            names; some were replaced by those of the steps' changes.
        scheme: of the activations.
        inputs: the grid of each quantized layer's input, by layer name. The stem has none: its
            input are 8-bit pixels already.
        weights: of every quantized layer but the stem, and of those in floating point whose weights
            alone are integers.
        outputs: grids of what modules give, by module name, where the scheme rounds outputs;
            `inputs` then is empty.
        pixel_stem: the stem that reads pixels; None where the stem is in floating point.
    """

    network: EfficientNet
    scheme: QuantizationScheme
    inputs: Mapping[str, TensorQuantization]
    weights: Mapping[str, QuantizedWeight]
    outputs: Mapping[str, TensorQuantization] = field(default_factory=dict)
    pixel_stem: PixelStem | None = None

    def reading_floats(self) -> QuantizedNetwork:
        """The same for normalized input: its stem, then in floating point, has no integers."""
        return replace(self, pixel_stem=None)

    def simulated(self) -> EfficientNet:
        """A copy that computes in float32 what the integer graph does, up to summation order."""
        network = channels_last(self.with_rounded_weights())
        for name, grid in self.inputs.items():
            module = network.get_submodule(name)
            module.register_forward_pre_hook(_fake_quantize_input(grid))
        round_outputs(network, self.outputs)
        return network

    def with_rounded_weights(self) -> EfficientNet:
        """A copy whose weights are on their grids, and whose activations are as they come."""
        network = copy.deepcopy(self.network)
        for name, weight in self.weights.items():
            network.get_parameter(f"{name}.weight").data.copy_(weight.dequantized())
        if self.pixel_stem is not None:
            self.pixel_stem.simulate_in(network)
        return network


def _fake_quantize_input(
    grid: TensorQuantization,
) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
    def hook(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (grid.fake_quantize(inputs[0]),)

    return hook
