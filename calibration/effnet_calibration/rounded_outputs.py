"""The outputs that a scheme rounds, in a network that was changed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_calibration.equalized_activation import EqualizedSiLU, Scale
from effnet_calibration.errors import CalibrationError
from effnet_calibration.module_rounding import round_output
from effnet_calibration.path import NetworkPath
from effnet_calibration.rounded_hard_swish import HardSwish6

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from effnet_calibration.quantization import Quantization
    from effnet_calibration.schemes import QuantizationScheme, TensorQuantization
    from effnet_edge.model.network import EfficientNet

SIGMOID_SCALE = 2**-8
"""Of a sigmoid in 8 bits, from 0 to 255/256: LiteRT's kernels have no other."""
SIGMOID_LARGEST = 255
SIGMOID_INPUT_SCALE = 2**-4
"""From -8 to 8: outside, the sigmoid of 8 bits stays as it is."""
HARD_GATE_SCALE = 6 / 255
"""Of `HardSwish6`: from 0 to 6, so that the grid's ends cut off as its gate does."""


def grids_of_outputs(
    network: EfficientNet, quantization: Quantization, scheme: QuantizationScheme
) -> dict[str, TensorQuantization]:
    """By module: those of the table, and those of sigmoids and hard gates, always the same.

    Raises:
        CalibrationError: the table has one of a module that the network lacks.
    """
    outputs = quantization.outputs.items()
    grids = {name: scheme.on_grid(each.scale, each.zero_point) for name, each in outputs}
    modules = dict(network.named_modules())
    if lacking := sorted(grids.keys() - modules.keys()):
        raise CalibrationError(
            f"the calibration table has an output of {lacking[0]}, which the network lacks"
        )
    if not scheme.quantizes_last_projection:
        for name in _read_by_last_projection(network):
            grids.pop(name, None)
    for name, module in modules.items():
        if isinstance(module, EqualizedSiLU):
            if isinstance(module.real, Scale):
                grids[f"{name}.real"] = scheme.on_grid(SIGMOID_INPUT_SCALE, 0)
            grids[f"{name}.sigmoid"] = scheme.on_grid(SIGMOID_SCALE, scheme.minimum)
        elif isinstance(module, HardSwish6):
            grids[f"{name}.gate"] = scheme.on_grid(HARD_GATE_SCALE, scheme.minimum)
    return grids


def _read_by_last_projection(network: EfficientNet) -> tuple[str, ...]:
    """The gate before it, and what the gate multiplies by: in floating point, as it is itself."""
    path = NetworkPath.of(network)
    source = path.last_projection().source
    gate = path[source].gate if source is not None else None
    return () if gate is None else (gate, f"{gate}.scaled")


def round_outputs(network: EfficientNet, grids: Mapping[str, TensorQuantization]) -> None:
    """Let modules give what the integers of their grids stand for, in place.

    What goes into an activation is rounded there, and not where its convolution gives it: a bias
    is corrected by what the convolution gives, and a value far below is no error of the bias.
    """
    activations = {layer.name: layer.activation for layer in NetworkPath.of(network)}
    for name, grid in grids.items():
        activation = activations.get(name)
        if activation is None:
            round_output(network.get_submodule(name), grid)
        else:
            network.get_submodule(activation).register_forward_pre_hook(_rounded_input(grid))


def _rounded_input(
    grid: TensorQuantization,
) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
    return lambda _, inputs: (grid.fake_quantize(inputs[0]),)
