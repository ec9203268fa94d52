"""What the layers of a Keras model compute at their places: before, in and after the network.

The same layer is right at one place and wrong at another: swish between convolutions, a rescaling
before them, a softmax at the end.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import CheckpointWarning
from effnet_edge.model.checkpoints.keras_layers import KerasLayer, layers_in_order
from effnet_edge.model.checkpoints.output_activation import OutputActivation
from effnet_edge.model.preprocessing import PixelConventions

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from effnet_edge.model.checkpoints.hdf5_child import Variables

    Numbers = npt.NDArray[np.float64]

_SWISH = ("swish", "silu")
_ENDINGS = ("softmax", "sigmoid")
# Of the layers of keras/src/applications/efficientnet.py and efficientnet_v2.py.
_OF_NAMES = (("se_reduce", _SWISH), ("se_expand", ("sigmoid",)), ("conv", (None,)))
_STEM, _TOP = "stem_conv", "top_conv"
_AFFINE = ("Rescaling", "Normalization")
_COMPUTING = frozenset(
    {
        *(*_AFFINE, "Multiply", "Add", "Subtract", "Average", "Maximum", "Minimum", "Dot"),
        *("Concatenate", "Lambda", "BatchNormalization", "LayerNormalization"),
        *("UnitNormalization", "GroupNormalization", "RMSNormalization"),
        *("ReLU", "LeakyReLU", "PReLU", "ELU", "ThresholdedReLU"),
    }
)
_LARGEST_PIXEL = 255.0
_SMALLEST_DEVIATION = 1e-7  # keras/src/layers/preprocessing/normalization.py
_LAST_AXES = (-1, 1)
# Of what people divide pixels of 0 to 1 by.
_LEAST_STD, _MOST_STD = 0.02, 2.0


@dataclass(frozen=True)
class KerasPlaces:
    """What the layers around a network make of its input and its output.

    Attributes:
        pixels: what they do to pictures; None where nothing does.
        output_activation: what its classifier's numbers go through, if anything.
    """

    pixels: PixelConventions | None
    output_activation: OutputActivation | None


def read_places(name: str, text: str | bytes, variables: Variables) -> KerasPlaces | None:
    """Follow a model's layers from the pixels to the output; None where it does not tell them.

    Args:
        name: of the checkpoint, for the errors.
        text: of the description, JSON.
        variables: of the layers, for the statistics of a normalization.

    Raises:
        CheckpointError: a layer computes what none here does; the text names it.
    """
    layers = layers_in_order(name, text)
    convolutions = [index for index, layer in enumerate(layers) if layer.kind == "Conv2D"]
    if not convolutions:
        return None
    first, last = convolutions[0], convolutions[-1]
    pixels = _pixels(layers[:first], variables)
    _tell_doubts(name, pixels)
    for layer in layers[first : last + 1]:
        _check_inside(layer)
    return KerasPlaces(pixels, _output_activation(*_behind(layers, last)))


def _tell_doubts(name: str, pixels: PixelConventions | None) -> None:
    """Warn where a model seems to be given something else than pixels of 0 to 255."""
    if pixels is None:
        doubt = (
            "its model has no layers that normalize pixels: taken for those that Keras's own "
            "models of the variant begin with"
        )
    elif not all(_LEAST_STD <= each <= _MOST_STD for each in pixels.std or ()):
        deviations = ",".join(f"{each:.4g}" for each in pixels.std or ())
        doubt = (
            "the layers before the network divide pixels of 0 to 255 by 255 times "
            f"{deviations}, which is followed"
        )
    else:
        return
    told = f"{name}: {doubt}; if you trained otherwise, give --mean and --std"
    warnings.warn(told, CheckpointWarning, stacklevel=2)


def _pixels(layers: Sequence[KerasLayer], variables: Variables) -> PixelConventions | None:
    """All layers before the first convolution in one: pixel · factor + offset."""
    factor, offset = np.ones(1), np.zeros(1)
    is_told = False
    for layer in layers:
        if layer.is_operation or layer.kind in ("Activation", "BatchNormalization"):
            layer.refuse("changes the pixels before the network")
        if layer.kind in _AFFINE:
            its_factor, its_offset = _affine(layer, variables)
            try:
                factor, offset = factor * its_factor, offset * its_factor + its_offset
            except ValueError:
                layer.refuse("has numbers for other channels than the layers before it")
            is_told = True
    return _conventions(factor, offset, variables) if is_told else None


def _affine(layer: KerasLayer, variables: Variables) -> tuple[Numbers, Numbers]:
    """What it multiplies with, and what it adds then."""
    if layer.kind == "Rescaling":
        return layer.numbers("scale", 1.0), layer.numbers("offset")
    if layer.config.get("invert"):
        layer.refuse("undoes a normalization")
    mean, variance = (
        layer.numbers(key) if layer.config.get(key) is not None else _adapted(layer, key, variables)
        for key in ("mean", "variance")
    )
    factor = 1 / np.maximum(np.sqrt(np.maximum(variance, 0)), _SMALLEST_DEVIATION)
    return factor, -mean * factor


def _adapted(layer: KerasLayer, key: str, variables: Variables) -> Numbers:
    found = variables.get((layer.name, key))
    if found is None:
        layer.refuse(f"has no {key} in the file", "adapt it, and save the whole model again")
    return np.asarray(found, np.float64).reshape(-1)


def _conventions(factor: Numbers, offset: Numbers, variables: Variables) -> PixelConventions:
    stem = variables.get((_STEM, "kernel"))
    channels = stem.shape[2] if stem is not None and stem.ndim == 4 else 1
    factor, offset = (
        np.broadcast_to(each, channels) if each.size == 1 else each for each in (factor, offset)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return PixelConventions(
            mean=as_meant(-offset / factor / _LARGEST_PIXEL),
            std=as_meant(1 / factor / _LARGEST_PIXEL),
        )


def as_meant(values: npt.NDArray[np.floating]) -> tuple[float, ...]:
    """The shortest numbers of the same float32: of 0.48500001430511475 it is 0.485."""
    return tuple(
        float(np.format_float_positional(np.float32(each))) + 0.0 for each in values.reshape(-1)
    )


def _check_inside(layer: KerasLayer) -> None:
    if layer.is_operation or layer.kind in _AFFINE:
        layer.refuse("stands inside the network")
    if layer.kind == "Activation" and layer.activation not in _SWISH:
        layer.refuse(f"has the activation {layer.activation or 'linear'!r}")
    if layer.kind != "Conv2D":
        return
    ending = (allowed for ending, allowed in _OF_NAMES if layer.name.endswith(ending))
    if layer.activation not in next(ending, (None,)):
        layer.refuse(f"has the activation {layer.activation or 'linear'!r}")


def _behind(
    layers: Sequence[KerasLayer], last: int
) -> tuple[Sequence[KerasLayer], KerasLayer | None]:
    """Those behind the last convolution, and itself where it stands for the dense layer.

    It does where it comes after the network's own last one.
    """
    convolution, *behind = layers[last:]
    if all(layer.name != _TOP for layer in layers[:last]):
        return _after_top(behind), None
    if (convolution.numbers("strides", 1.0) != 1).any():
        convolution.refuse("skips pixels behind the network")
    return behind, convolution


def _after_top(layers: Sequence[KerasLayer]) -> Sequence[KerasLayer]:
    """Those behind the batch norm and the activation of the last convolution."""
    behind = list(layers)
    for kind, activations in (("BatchNormalization", (None,)), ("Activation", _SWISH)):
        if behind and behind[0].kind == kind and behind[0].activation in activations:
            behind.pop(0)
    return behind


def _output_activation(
    layers: Sequence[KerasLayer], dense: KerasLayer | None
) -> OutputActivation | None:
    """Hold what stands behind the network against a mean, a dense layer and its activation.

    A softmax or a sigmoid changes no class, and is what an export leaves to its reader.

    Args:
        dense: what stands for it, of one pixel, before these.
    """
    ending: OutputActivation | None = None
    for layer in layers:
        if layer.is_passive or _changes_nothing(layer):
            continue
        if ending is not None:
            layer.refuse(f"comes after the {ending.kind} of {ending.layer}")
        if layer.kind == "Dense":
            dense = layer
        elif layer.is_operation or layer.kind in _COMPUTING:
            layer.refuse("stands behind the network")
        kind = _activation(layer)
        if kind is not None:
            if dense is None or kind not in _ENDINGS:
                layer.refuse(f"has the activation {kind!r}")
            ending = OutputActivation(layer.name, kind)
    return ending


def _activation(layer: KerasLayer) -> str | None:
    if layer.kind != "Softmax":
        return layer.activation
    if layer.config.get("axis", -1) not in _LAST_AXES:
        layer.refuse(f"is over the axis {layer.config['axis']!r}")
    return "softmax"


def _changes_nothing(layer: KerasLayer) -> bool:
    return layer.kind == "Rescaling" and bool(
        (layer.numbers("scale", 1.0) == 1).all() and (layer.numbers("offset") == 0).all()
    )
