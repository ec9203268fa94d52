"""Calibration of networks with independent labels and of those without a classifier."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from tiny_networks import PREPROCESSING, Smooth, normalized, random_network

from effnet_calibration.calibrate import calibrate
from effnet_calibration.mixed_precision import keep_for_budget
from effnet_calibration.quantized import apply, apply_quantization
from effnet_calibration.schemes import ASYMMETRIC_UINT8, SYMMETRIC_INT8
from effnet_calibration.sensitivity import sensitivity
from effnet_calibration.sites import CLASSIFIER, HEAD, quantized_layers
from effnet_calibration.table import CalibrationTable, identify
from effnet_edge.parity import Gate
from effnet_edge.parity.metrics import normalized_error, sigmoid_kl_divergence, sqnr_db

if TYPE_CHECKING:
    from effnet_edge.model.network import EfficientNet

SCHEMES = (ASYMMETRIC_UINT8, SYMMETRIC_INT8)


@pytest.fixture(scope="module")
def features_network(network: EfficientNet) -> EfficientNet:
    bare = copy.deepcopy(network)
    bare.classifier = torch.nn.Identity()
    bare.output_kind = "features"
    return bare


@pytest.fixture(scope="module")
def features_table(features_network: EfficientNet) -> CalibrationTable:
    return calibrate(features_network, Smooth(32), PREPROCESSING, SCHEMES)


def test_everything_but_the_classifier_is_quantized(
    features_network: EfficientNet, features_table: CalibrationTable
) -> None:
    assert CLASSIFIER not in quantized_layers(features_network)
    assert list(quantized_layers(features_network))[-1] == HEAD
    assert identify(features_network).classes == 1280
    for scheme in SCHEMES:
        part = features_table.quantization(scheme.name)
        assert CLASSIFIER not in part.tensors
        assert CLASSIFIER not in part.biases
        assert part.logit_gain == 1.0
    assert CalibrationTable.from_json(features_table.to_json()) == features_table


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda each: each.name)
def test_the_features_survive(
    features_network: EfficientNet, features_table: CalibrationTable, scheme
) -> None:
    quantized = apply(features_network, features_table, scheme).simulated()
    batch = normalized(8, seed=5)
    with torch.inference_mode():
        exact, found = features_network(batch), quantized(batch)
    assert sqnr_db(exact.numpy(), found.numpy()) > 10


def test_the_cost_of_a_tensor_is_its_share_of_the_features_energy(
    features_network: EfficientNet, features_table: CalibrationTable
) -> None:
    part = features_table.quantization(ASYMMETRIC_UINT8.name)
    batches = [normalized(4)]
    costs = {each.name: each.divergence for each in sensitivity(features_network, part, batches)}
    assert set(costs) == set(quantized_layers(features_network))
    assert all(0 <= cost < 1 for cost in costs.values())
    # The head has nothing behind it: rounding it alone can be done by hand, but for its mean error.
    rounded = apply_quantization(features_network, part).simulated()
    swapped = copy.deepcopy(features_network)
    swapped.head = rounded.head
    with torch.inference_mode():
        exact, found = features_network(batches[0]), swapped(batches[0])
    assert costs[HEAD] <= normalized_error(exact.numpy(), found.numpy()) * 1.5


def independent(seed: int = 0) -> EfficientNet:
    network = random_network(seed=seed)
    network.output_kind = "multi-label"
    return network


def test_a_kl_budget_of_independent_labels_is_measured_label_by_label() -> None:
    network, pictures = independent(), Smooth(32)
    table = calibrate(network, pictures, PREPROCESSING, (ASYMMETRIC_UINT8,))
    part = table.quantization(ASYMMETRIC_UINT8.name)
    found = keep_for_budget(network, part, pictures, PREPROCESSING, Gate(max_kl=10.0))

    assert part.logit_gain == 1.0
    assert CLASSIFIER in part.biases
    loss = found.best.loss
    simulated = apply_quantization(network, part).simulated()
    batch = normalized(32)
    with torch.inference_mode():
        expected = sigmoid_kl_divergence(network(batch).numpy(), simulated(batch).numpy())
    assert loss.kl == pytest.approx(expected, rel=0.05)
    assert (loss.output, loss.top1_agreement) == ("multi-label", None)


def test_the_costs_of_independent_labels_are_their_own_divergence() -> None:
    network = independent()
    table = calibrate(network, Smooth(32), PREPROCESSING, (ASYMMETRIC_UINT8,))
    part = table.quantization(ASYMMETRIC_UINT8.name)
    many = {each.name: each.divergence for each in sensitivity(network, part, [normalized(4)])}
    network.output_kind = "single-label"
    one = {each.name: each.divergence for each in sensitivity(network, part, [normalized(4)])}
    assert many.keys() == one.keys()
    assert any(many[name] != pytest.approx(one[name], rel=0.01) for name in many)
