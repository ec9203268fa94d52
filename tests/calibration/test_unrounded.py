"""What the tensors of a written graph are held against, one by one: the same, not rounded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from tiny_networks import PREPROCESSING, Smooth, normalized

from effnet_calibration.activation_fitting import SHARE
from effnet_calibration.calibrate import observe, tabulate
from effnet_calibration.path import NetworkPath
from effnet_calibration.quantization import ACTIVATIONS, CENTRES
from effnet_calibration.quantized import apply, unrounded
from effnet_calibration.schemes import ASYMMETRIC_UINT8
from effnet_calibration.work import Settings
from effnet_edge.parity.measures.metrics import sqnr_db

if TYPE_CHECKING:
    from effnet_edge.model.network import EfficientNet

pytestmark = pytest.mark.filterwarnings("ignore::effnet_calibration.errors.CalibrationWarning")


def outputs(network: EfficientNet) -> dict[str, torch.Tensor]:
    """What each layer, activation and gate of the network's path gives, by its name."""
    path, found = NetworkPath.of(network), {}
    modules = [name for each in path for name in (each.name, each.activation, each.gate)]
    for name in filter(None, modules):
        network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: found.__setitem__(name, output)
        )
    with torch.inference_mode():
        network(normalized(4))
    return found


def test_each_tensor_is_that_of_the_graph_that_is_written(network: EfficientNet) -> None:
    settings = Settings(fitted_share=SHARE, correct_biases=False, zero_in_middle=True)
    table = tabulate(observe(network, Smooth(32), PREPROCESSING), (ASYMMETRIC_UINT8,), settings)
    path, part = NetworkPath.of(network), table.quantization(ASYMMETRIC_UINT8.name)
    centred = [name for name, centre in part.changes(CENTRES).items() if centre]
    kept = [layer.name for layer in path.of_kind("depthwise")][::2] + centred[::2]
    part = part.keeping(kept).uncorrected()
    assert part.changes(ACTIVATIONS)
    assert centred

    table = replace(table, quantizations={part.scheme: part})
    applied = apply(network, table, ASYMMETRIC_UINT8)
    written = outputs(applied.with_rounded_weights())

    found = outputs(unrounded(network, part))
    assert found.keys() == written.keys()
    # Their weights are rounded, as are the centres that the written biases give back.
    differ = {name: sqnr_db(written[name], found[name]) for name in found}
    assert {name: decibels for name, decibels in differ.items() if decibels < 15} == {}
