"""A table applied to a network: everything that a writer of integer graphs needs."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from effnet_calibration.activation_fitting import fold_factors
from effnet_calibration.equalization import centre_projection, scale_logits
from effnet_calibration.errors import CalibrationError
from effnet_calibration.integer_weights import QuantizedWeight
from effnet_calibration.path import STEM, NetworkPath
from effnet_calibration.pixel_stem import PixelStem
from effnet_calibration.quantization import ACTIVATIONS, CENTRES, INTEGER_WEIGHTS
from effnet_calibration.quantized_network import QuantizedNetwork
from effnet_calibration.rounded_outputs import grids_of_outputs
from effnet_calibration.schemes import (
    FLOATING_POINT,
    QuantizationScheme,
    TensorQuantization,
    get_scheme,
)
from effnet_calibration.steps import CHANGES
from effnet_edge.errors import first_line

if TYPE_CHECKING:
    from effnet_calibration.path import Layer
    from effnet_calibration.quantization import Quantization
    from effnet_calibration.table import CalibrationTable
    from effnet_edge.model.network import EfficientNet


def apply(
    network: EfficientNet, table: CalibrationTable, scheme: QuantizationScheme
) -> QuantizedNetwork:
    """Quantize a folded network by a table: the same table and weights, the same bits.

    Raises:
        CalibrationError: the table is another network's, or has no part for the scheme.
    """
    table.check_model(network)
    quantization = table.quantization(scheme.name)
    applied = apply_quantization(network, quantization)
    if scheme.rounds_outputs:
        _check_outputs(NetworkPath.of(network), quantization)
    _fold_last(applied.network, quantization)
    return applied


def unrounded(network: EfficientNet, quantization: Quantization) -> EfficientNet:
    """A copy of a folded network with the tensors that its written graph has, in full precision.

    Raises:
        CalibrationError: the part does not fit the network.
    """
    copied = changed(network, quantization)
    path = NetworkPath.of(copied)
    rounded = {layer.name for layer in _of_integer_weights(path, quantization)}
    for name, centre in quantization.changes(CENTRES).items():
        if name not in rounded:
            _take_centre_back(copied, path, path[name], cast("float", centre))
    _fold_last(copied, quantization)
    return copied


def apply_quantization(network: EfficientNet, quantization: Quantization) -> QuantizedNetwork:
    """Quantize a folded network by one scheme's part of its own table.

    Raises:
        CalibrationError: the part does not fit the network.
    """
    scheme = get_scheme(quantization.scheme)
    network = changed(network, quantization)
    path = NetworkPath.of(network)
    kept = _in_floats(path, quantization)
    rounded = () if scheme.rounds_outputs else _of_rounded_inputs(path, quantization)
    inputs = {layer.name: _grid(layer, quantization, scheme) for layer in rounded}
    weights = {
        layer.name: QuantizedWeight.of(layer.module(network).weight.detach(), scheme.weight_limit)
        for layer in _of_integer_weights(path, quantization)
    }
    pixel_stem = None
    if quantization.pixels is not None and STEM not in kept:
        pixel_stem = PixelStem.of(network, quantization.pixels, scheme)
    for name, centre in quantization.changes(CENTRES).items():
        if name in weights:
            _restore_centre(network, path[name], cast("float", centre), weights[name])
        else:
            _take_centre_back(network, path, path[name], cast("float", centre))
    outputs = grids_of_outputs(network, quantization, scheme)
    return QuantizedNetwork(network, scheme, inputs, weights, outputs, pixel_stem)


def simulate(network: EfficientNet, quantization: Quantization) -> EfficientNet:
    """A copy of a folded network that computes what its quantized form does."""
    return apply_quantization(network, quantization).simulated()


def changed(network: EfficientNet, quantization: Quantization) -> EfficientNet:
    """A copy with everything that the steps changed, and nothing rounded.

    Raises:
        CalibrationError: the changes do not fit the network, or one is unknown.
    """
    copied = copy.deepcopy(network)
    path = NetworkPath.of(copied)
    for name, each in quantization.layers.items():
        if name not in path:
            raise CalibrationError(f"the calibration table has {name}, which the network lacks")
        unknown = sorted(each.changes.keys() - CHANGES.keys())
        if unknown:
            raise CalibrationError(
                f"the calibration table holds '{unknown[0]}', which this effnet-edge does not "
                "know: update effnet-edge, or calibrate again"
            )
    try:
        for change, make in CHANGES.items():
            decided = quantization.changes(change)
            # In the network's order, whatever a table's is: the last bits depend on it.
            for name in (each for each in path.names if each in decided):
                make(copied, path, path[name], decided[name])
            if change == ACTIVATIONS and quantization.scheme == FLOATING_POINT.name:
                fold_factors(copied, path, decided, path.names)
    except (RuntimeError, AttributeError, ValueError, TypeError) as error:
        raise CalibrationError(
            f"the calibration table's factors do not fit the network: {first_line(error)}"
        ) from error
    if quantization.logit_gain != 1:
        scale_logits(copied, 1 / quantization.logit_gain)
    return copied


def _fold_last(network: EfficientNet, quantization: Quantization) -> None:
    """Last of all: the numbers that a table holds are those of weights without these factors."""
    fitted = quantization.changes(ACTIVATIONS)
    fold_factors(network, NetworkPath.of(network), fitted, quantization.kept)


def _in_floats(path: NetworkPath, quantization: Quantization) -> set[str]:
    """Names of the layers whose inputs are not rounded, by their scheme or by choice."""
    return _left_in_floats(path, get_scheme(quantization.scheme)) | set(quantization.kept)


def _of_rounded_inputs(path: NetworkPath, quantization: Quantization) -> list[Layer]:
    kept = _in_floats(path, quantization)
    return [layer for layer in path.inputs if layer.name not in kept]


def _of_integer_weights(path: NetworkPath, quantization: Quantization) -> list[Layer]:
    """Those of rounded inputs, and those whose weights alone are integers."""
    alone = (path[name] for name in quantization.changes(INTEGER_WEIGHTS))
    return [*_of_rounded_inputs(path, quantization), *alone]


def _left_in_floats(path: NetworkPath, scheme: QuantizationScheme) -> set[str]:
    """Names of the layers that a scheme does not quantize."""
    if not scheme.rounds:
        return set(path.names)
    names = set()
    if not scheme.quantizes_gates:
        names |= {layer.name for layer in path if layer.in_gate}
    if not scheme.quantizes_depthwise:
        names |= {layer.name for layer in path.of_kind("depthwise")}
    if not scheme.quantizes_last_projection:
        names.add(path.last_projection().name)
    if not scheme.quantizes_classifier:
        names |= {layer.name for layer in path.of_kind("classifier")}
    return names


def _check_outputs(path: NetworkPath, quantization: Quantization) -> None:
    """Refuse a table in which what a layer gives has no grid; the classifier's has none."""
    given = (each.activation or each.name for each in path.main if each.kind != "classifier")
    for name in given:
        if name not in quantization.outputs:
            raise CalibrationError(f"the calibration table lacks {name}: calibrate again")


def _grid(
    layer: Layer, quantization: Quantization, scheme: QuantizationScheme
) -> TensorQuantization:
    entry = quantization.layer(layer.name).grid
    if entry is None:
        raise CalibrationError(f"the calibration table lacks {layer.name}: calibrate again")
    return scheme.on_grid(entry.scale, entry.zero_point)


def _take_centre_back(
    network: EfficientNet, path: NetworkPath, layer: Layer, centre: float
) -> None:
    """In 16 bit values far from 0 would lose what the grid does not need of them."""
    centre_projection(network, path, layer, -centre)


def _restore_centre(
    network: EfficientNet, layer: Layer, centre: float, weight: QuantizedWeight
) -> None:
    """Let the bias give back what the rounded weights, not the exact ones, lose with the centre."""
    module, rounded = layer.module(network), weight.dequantized()
    lost = (module.weight.double() - rounded.double()).flatten(1).sum(1)
    bias = cast("Tensor", module.bias) - lost * centre
    module.bias = nn.Parameter(bias.float(), requires_grad=False)
