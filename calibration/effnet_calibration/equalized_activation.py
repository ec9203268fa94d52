"""Activations whose input is equalized, too, for engines that round every operator's output.

Where the value before an activation is rounded to 8 bits with one scale for all channels, a channel
that reaches to 2 beside one that reaches to 80 keeps six of the 256 steps. x / s, a factor s a
channel, fills the grid in every channel. The factor goes into the convolution before, and the real
value comes back only where SiLU needs it:

    SiLU(x) / s = (x / s) · sigmoid(s · (x / s))

The product with s feeds nothing but the sigmoid, which is as good as constant outside of ±8: its
8 bits span just that. What is left of s behind the activation goes into the weights that read it.
ReLU and ReLU6 need no product: their ends are those of the grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from effnet_calibration.errors import CalibrationError
from effnet_calibration.path import frozen, multiply_inputs

if TYPE_CHECKING:
    from effnet_calibration.path import Layer, NetworkPath
    from effnet_calibration.quantization import Numbers
    from effnet_edge.model.network import EfficientNet, SqueezeExcitation

EQUALIZED = "equalized"
GATES = "gates"
SATURATION = "saturation"

FACTOR_STEPS = 127
"""The factors s of a tensor are this many equal steps, as they are 8-bit integers themselves."""


class Scale(nn.Module):
    """A factor a channel: float32 (N, C, H, W) → the same shape."""

    factors: Tensor

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.register_buffer("factors", factors.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply each channel by its own."""
        return x * self.factors


class EqualizedSiLU(nn.Module):
    """x / s → SiLU(x) / s, for s a channel: float32 (N, C, H, W). There is no `real` for s = 1."""

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.real = nn.Identity() if bool((factors == 1).all()) else Scale(factors)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) → the same shape."""
        sigmoid: Tensor = self.sigmoid(self.real(x))
        return x * sigmoid


class EqualizedReLU6(nn.Module):
    """x / s → ReLU6(x) / s, for s a channel: float32 (N, C, H, W)."""

    limits: Tensor

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.register_buffer("limits", (6 / factors).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) → the same shape."""
        return torch.minimum(torch.relu(x), self.limits)


class EqualizedSqueezeExcitation(nn.Module):
    """Squeeze-excitation whose gate also scales each channel, by a module of its own.

    The other submodules are those of the original, under the same names.
    """

    def __init__(self, original: SqueezeExcitation, factors: Tensor) -> None:
        super().__init__()
        self.pool = original.pool
        self.reduce = original.reduce
        self.act = original.act
        self.expand = original.expand
        self.gate = original.gate
        self.scaled = Scale(factors)

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) → the same shape."""
        gate: Tensor = self.scaled(self.gate(self.expand(self.act(self.reduce(self.pool(x))))))
        return x * gate


def on_steps(factors: Tensor) -> Tensor:
    """Factors of which the largest is `FACTOR_STEPS` steps, none smaller than it was: (C,)."""
    step = factors.max() / FACTOR_STEPS
    return (factors / step - 1e-4).ceil().clamp(1, FACTOR_STEPS) * step


def equalize_activation(
    network: EfficientNet, path: NetworkPath, layer: Layer, numbers: Numbers
) -> None:
    """Divide what goes into a layer's activation, and comes out, by factors, one a channel."""
    factors = torch.as_tensor(numbers, dtype=torch.float32)
    module = layer.module(network)
    if layer.activation is None or module.bias is None or len(factors) != len(module.weight):
        raise CalibrationError(
            f"the calibration table's factors of {layer.name} do not fit the network"
        )
    divisors = factors.double()
    module.weight = frozen(module.weight.double() / divisors.view(-1, 1, 1, 1))
    module.bias = frozen(module.bias.double() / divisors)
    if network.activation == "silu":
        network.set_submodule(layer.activation, EqualizedSiLU(factors))
    elif network.activation == "relu6":
        network.set_submodule(layer.activation, EqualizedReLU6(factors))
    if bool((factors == 1).all()):
        return
    let_readers_multiply(network, path, layer, divisors)


def make_up_for_saturation(
    network: EfficientNet, path: NetworkPath, layer: Layer, numbers: Numbers
) -> None:
    """Let what reads an activation multiply its channels by what its sigmoid lost: (C,).

    A sigmoid of 8 bits ends at 255/256. What one activation loses there the next ones lose again,
    and the logits lack it all.
    """
    let_readers_multiply(network, path, layer, torch.as_tensor(numbers, dtype=torch.float64))


def equalize_gate(network: EfficientNet, path: NetworkPath, layer: Layer, numbers: Numbers) -> None:
    """Let the gate before a projection multiply its channels by factors."""
    gate = path[cast("str", layer.source)].gate
    if gate is None:
        raise CalibrationError(
            f"the calibration table has a gate before {layer.name}: there is none"
        )
    factors = torch.as_tensor(numbers, dtype=torch.float32)
    original = cast("SqueezeExcitation", network.get_submodule(gate))
    network.set_submodule(gate, EqualizedSqueezeExcitation(original, factors))
    multiply_inputs(layer, network, 1 / factors.double())


def let_readers_multiply(
    network: EfficientNet, path: NetworkPath, layer: Layer, factors: Tensor
) -> None:
    """Multiply the weights that read a layer's activation by its channels' factors, (C,)."""
    multiply_inputs(path.reader(layer), network, factors)
    if layer.gate is not None:
        multiply_inputs(path[f"{layer.gate}.reduce"], network, factors)
