"""Per-channel factors that make quantization finer and change nothing else.

Three tensors of an EfficientNet have channels that may be scaled for free:

- the input of a depthwise convolution, which never mixes channels: the factor multiplies the
  activation before it and divides the depthwise weights;
- the input of a projection, through the squeeze-excitation gate, a per-channel multiplier already:
  the factor multiplies the gate and divides the projection's input weights. Where there is no gate,
  the factor multiplies the activation: SiLU and ReLU6 do not let it pass to the layer before;
- a stage's residual stream, which is linear between a projection and the layers that read it: the
  factor multiplies every projection of the stage and divides every reader's input weights.

All are exact in real arithmetic. They change the network in place: each function is one of a step's
changes, see `work.Step`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from effnet_calibration.errors import CalibrationError
from effnet_calibration.fitted_activation import FittedActivation
from effnet_calibration.path import CLASSIFIER, frozen

if TYPE_CHECKING:
    from effnet_calibration.path import Layer, NetworkPath
    from effnet_calibration.quantization import Numbers
    from effnet_edge.model.network import EfficientNet, SqueezeExcitation


class _Scaled(nn.Module):
    """Whatever scales each channel by a factor, and then subtracts a constant from all."""

    factors: Tensor
    centre: Tensor | None

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.register_buffer("factors", factors.view(1, -1, 1, 1))
        self.register_buffer("centre", None)

    def subtract(self, centre: float) -> None:
        """Subtract `centre` from now on, beside what is subtracted already.

        As a tensor (1, C, 1, 1): a scalar becomes a literal in the kernels that TensorRT-RTX
        generates, and each block of a shape gets a kernel of its own.
        """
        so_far = 0.0 if self.centre is None else float(self.centre.flatten()[0])
        total = so_far + centre
        self.centre = torch.full_like(self.factors, total) if total else None

    def _centred(self, scaled: Tensor) -> Tensor:
        return scaled if self.centre is None else scaled - self.centre


class ScaledActivation(_Scaled):
    """An activation times a factor a channel, less a constant: float32 (N, C, H, W)."""

    def __init__(self, original: nn.Module, factors: Tensor) -> None:
        super().__init__(factors)
        self.original = original

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) → the same shape."""
        return self._centred(self.original(x) * self.factors)


class ScaledSqueezeExcitation(_Scaled):
    """Squeeze-excitation whose gate also scales each channel, and which subtracts a constant.

    The submodules are those of the original, under the same names.
    """

    undivided: Tensor | None

    def __init__(self, original: SqueezeExcitation, factors: Tensor) -> None:
        super().__init__(factors)
        self.register_buffer("undivided", None)
        self.pool = original.pool
        self.reduce = original.reduce
        self.act = original.act
        self.expand = original.expand
        self.gate = original.gate

    def read_divided(self, factors: Tensor) -> None:
        """Expect each channel divided by its factor, (C,), and give what came out before."""
        self.undivided = factors.float().view_as(self.factors)
        self.factors = self.factors * self.undivided

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) → the same shape."""
        mean = self.pool(x)
        if self.undivided is not None:
            mean = mean * self.undivided
        gate = self.gate(self.expand(self.act(self.reduce(mean)))) * self.factors
        return self._centred(x * gate)


def equalize_depthwise(
    network: EfficientNet, path: NetworkPath, layer: Layer, factors: Numbers
) -> None:
    """Scale the input channels of a depthwise convolution by `factors`, one a channel."""
    scale = _per_channel(factors)
    _scale_activation(network, _producer(path, layer), scale)
    _divide(layer.module(network), scale.view(-1, 1, 1, 1))


def equalize_projection(
    network: EfficientNet, path: NetworkPath, layer: Layer, factors: Numbers
) -> None:
    """Scale the input channels of a projection by `factors`, one a channel."""
    scale = _per_channel(factors)
    producer = _producer(path, layer)
    if producer.gate is not None:
        gate = cast("SqueezeExcitation", network.get_submodule(producer.gate))
        network.set_submodule(producer.gate, ScaledSqueezeExcitation(gate, scale))
    else:
        _scale_activation(network, producer, scale)
    _divide(layer.module(network), scale.view(1, -1, 1, 1))


def centre_projection(
    network: EfficientNet, path: NetworkPath, layer: Layer, centre: Numbers
) -> None:
    """Subtract `centre` from all of a projection's scaled input; its bias gives it back."""
    value = cast("float", centre)
    if not value:
        return
    producer = _producer(path, layer)
    scaled = network.get_submodule(cast("str", producer.gate or producer.activation))
    if not isinstance(scaled, (_Scaled, FittedActivation)):
        raise CalibrationError(f"the calibration table has a centre of {layer.name}, no factors")
    scaled.subtract(value)
    conv = layer.module(network)
    restored = conv.weight.double().sum((1, 2, 3)) * value
    conv.bias = frozen(_bias(conv).double() + restored)


def equalize_stream(
    network: EfficientNet, path: NetworkPath, layer: Layer, factors: Numbers
) -> None:
    """Scale the channels of the residual stream that the layer adds to by `factors`."""
    stage, scale = cast("int", layer.adds_to), _per_channel(factors)
    for projection in path.stream_projections(stage):
        conv = projection.module(network)
        conv.weight = frozen(conv.weight.double() * scale.double().view(-1, 1, 1, 1))
        conv.bias = frozen(_bias(conv).double() * scale.double())
    for reader in path.stream_readers(stage):
        per_output = reader.kind == "depthwise"
        _divide(
            reader.module(network),
            scale.view(-1, 1, 1, 1) if per_output else scale.view(1, -1, 1, 1),
        )


def scale_logits(network: EfficientNet, factor: float) -> None:
    """Multiply the logits by `factor`, through the classifier's weights and bias."""
    classifier = cast("nn.Linear", network.get_submodule(CLASSIFIER))
    classifier.weight = frozen(classifier.weight.double() * factor)
    classifier.bias = frozen(_bias(classifier).double() * factor)


def multiply_in_gate(network: EfficientNet, layer: Layer, factors: Tensor) -> None:
    """Let the gate behind a layer multiply by factors, (C,), that its map then lacks.

    Both the mean and the gate are one number a channel, and the map is not touched once more.
    """
    name = cast("str", layer.gate)
    gate = network.get_submodule(name)
    if not isinstance(gate, ScaledSqueezeExcitation):
        gate = ScaledSqueezeExcitation(cast("SqueezeExcitation", gate), torch.ones(len(factors)))
        network.set_submodule(name, gate)
    gate.read_divided(factors)


def _scale_activation(network: EfficientNet, producer: Layer, scale: Tensor) -> None:
    name = cast("str", producer.activation)
    activation = network.get_submodule(name)
    if isinstance(activation, FittedActivation):
        activation.scale(scale)
    else:
        network.set_submodule(name, ScaledActivation(activation, scale))


def _producer(path: NetworkPath, layer: Layer) -> Layer:
    if layer.source is None:
        raise CalibrationError(f"{layer.name} reads no activation: no factor can follow it")
    return path[layer.source]


def _per_channel(numbers: Numbers) -> Tensor:
    """Float32 (C,)."""
    return torch.as_tensor(numbers, dtype=torch.float32)


def _divide(conv: nn.Conv2d | nn.Linear, factors: Tensor) -> None:
    conv.weight = frozen(conv.weight.double() / factors.double())


def _bias(module: nn.Conv2d | nn.Linear) -> Tensor:
    if module.bias is None:
        return torch.zeros(module.weight.shape[0])
    return module.bias
