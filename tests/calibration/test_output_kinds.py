"""Calibration of networks with independent labels and of those without a classifier."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from tiny_networks import PREPROCESSING, Smooth, normalized

from effnet_calibration.calibrate import calibrate
from effnet_calibration.loss_meter import LossMeter
from effnet_calibration.mixed_precision import keep_for_budget
from effnet_calibration.path import CLASSIFIER, HEAD, NetworkPath
from effnet_calibration.quantization import BIASES
from effnet_calibration.quantized import apply, apply_quantization
from effnet_calibration.schemes import ASYMMETRIC_UINT8, SYMMETRIC_INT8, QuantizationScheme
from effnet_calibration.sensitivity import sensitivity
from effnet_calibration.table import CalibrationTable, identify
from effnet_edge.parity import Gate
from effnet_edge.parity.measures.metrics import normalized_error, sigmoid_kl_divergence, sqnr_db

if TYPE_CHECKING:
    from effnet_calibration.quantization import Quantization
    from effnet_edge.model.network import EfficientNet


@pytest.fixture(scope="module")
def features_network(network: EfficientNet) -> EfficientNet:
    bare = copy.deepcopy(network)
    bare.classifier = torch.nn.Identity()
    bare.output_kind = "features"
    return bare


@pytest.fixture(
    scope="module",
    params=[ASYMMETRIC_UINT8, pytest.param(SYMMETRIC_INT8, marks=pytest.mark.sample)],
    ids=lambda each: each.name,
)
def scheme(request: pytest.FixtureRequest) -> QuantizationScheme:
    return request.param


@pytest.fixture(scope="module")
def features_table(features_network: EfficientNet, scheme: QuantizationScheme) -> CalibrationTable:
    return calibrate(features_network, Smooth(40), PREPROCESSING, (scheme,))


def test_everything_but_the_classifier_is_quantized(
    features_network: EfficientNet, features_table: CalibrationTable, scheme: QuantizationScheme
) -> None:
    assert NetworkPath.of(features_network).names[-1] == HEAD
    assert identify(features_network).classes == 1280
    part = features_table.quantization(scheme.name)
    assert CLASSIFIER not in part.layers
    assert part.logit_gain == 1.0
    assert CalibrationTable.from_json(features_table.to_json()) == features_table


def test_all_before_the_classifier_is_quantized_as_with_it(
    table: CalibrationTable, features_table: CalibrationTable, scheme: QuantizationScheme
) -> None:
    whole, bare = (each.quantization(scheme.name) for each in (table, features_table))
    assert bare.grids == {name: grid for name, grid in whole.grids.items() if name != CLASSIFIER}
    biases, wholes = bare.changes(BIASES), whole.changes(BIASES)
    assert biases.keys() == wholes.keys() - {CLASSIFIER}
    for name, added in biases.items():
        assert added == pytest.approx(wholes[name], rel=1e-3, abs=1e-4), name


def test_the_quantized_network_gives_features(
    network: EfficientNet,
    table: CalibrationTable,
    features_network: EfficientNet,
    features_table: CalibrationTable,
    scheme: QuantizationScheme,
) -> None:
    """Those that the whole quantized network makes its logits of."""
    whole = apply(network, table, scheme).simulated()
    bare = apply(features_network, features_table, scheme).simulated()
    seen = []
    whole.pool.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.inference_mode():
        whole(normalized(4, seed=5))
        features = bare(normalized(4, seed=5))
    assert features.shape == (4, 1280)
    assert sqnr_db(seen[0].numpy(), features.numpy()) > 20


def test_the_cost_of_a_tensor_is_its_share_of_the_features_energy(
    features_network: EfficientNet, features_table: CalibrationTable, scheme: QuantizationScheme
) -> None:
    part = features_table.quantization(scheme.name)
    batches = [normalized(4)]
    costs = {each.name: each.divergence for each in sensitivity(features_network, part, batches)}
    assert set(costs) == set(NetworkPath.of(features_network).names)
    assert all(0 <= cost < 1 for cost in costs.values())
    # The head has nothing behind it: rounding it alone can be done by hand, but for its mean error.
    rounded = apply_quantization(features_network, part).simulated()
    swapped = copy.deepcopy(features_network)
    swapped.head = rounded.head
    with torch.inference_mode():
        exact, found = features_network(batches[0]), swapped(batches[0])
    assert costs[HEAD] <= normalized_error(exact.numpy(), found.numpy()) * 1.5


@pytest.fixture(scope="module")
def independent(network: EfficientNet) -> EfficientNet:
    labelled = copy.deepcopy(network)
    labelled.output_kind = "multi-label"
    return labelled


@pytest.fixture(scope="module")
def part(independent: EfficientNet) -> Quantization:
    table = calibrate(independent, Smooth(32), PREPROCESSING, (ASYMMETRIC_UINT8,))
    return table.quantization(ASYMMETRIC_UINT8.name)


@pytest.mark.sample
def test_a_kl_budget_of_independent_labels_is_measured_label_by_label(
    independent: EfficientNet, part: Quantization
) -> None:
    found = keep_for_budget(independent, part, Smooth(32), PREPROCESSING, Gate(max_kl=10.0))

    assert part.logit_gain == 1.0
    assert CLASSIFIER in part.changes(BIASES)
    loss = found.best.loss
    simulated = apply_quantization(independent, part).simulated()
    batch = normalized(32)
    with torch.inference_mode():
        expected = sigmoid_kl_divergence(independent(batch).numpy(), simulated(batch).numpy())
    # Other batches sum in another order, and values on an edge of the grid go the other way.
    assert loss.kl == pytest.approx(expected, rel=0.3)
    assert (loss.output, loss.top1_agreement) == ("multi-label", None)


@pytest.mark.sample
def test_the_costs_of_independent_labels_are_their_own_divergence(
    independent: EfficientNet, part: Quantization
) -> None:
    batches = [normalized(4)]
    many = {each.name: each.divergence for each in sensitivity(independent, part, batches)}
    alone = copy.deepcopy(independent)
    alone.classifier = apply_quantization(independent, part.uncorrected()).simulated().classifier
    with torch.inference_mode():
        exact, found = independent(batches[0]), alone(batches[0])
        # Sensitivity is measured without the mean error.
        found = found - (found - exact).mean(0)
    expected = sigmoid_kl_divergence(exact.numpy(), found.numpy())
    assert many[CLASSIFIER] == pytest.approx(expected, rel=0.05)


def test_what_values_lose_is_a_share_of_their_spread(
    network: EfficientNet, table: CalibrationTable
) -> None:
    """An offset that all of them share makes nothing cheaper."""
    # The fixture's gain is for a softmax; of values it would be taken off the offset, too.
    part = replace(table.quantization(ASYMMETRIC_UINT8.name), logit_gain=1.0)
    told = []
    with torch.inference_mode():
        spread = network(normalized(8)).std(0).max().item()
    for offset in (0.0, 1000 * spread):
        values = copy.deepcopy(network)
        values.output_kind = "regression"
        values.classifier.bias.data += offset
        loss = LossMeter(values, Smooth(8), PREPROCESSING).measure(part)
        assert Gate(max_nrmse=loss.nrmse + 1e-6).check(loss) == []
        told.append((loss.nrmse, loss.sqnr_db))
    (plain, decibels), (moved, moved_decibels) = told
    # In float32, a thousand has three digits less behind the point.
    assert moved == pytest.approx(plain, rel=0.05)
    assert moved_decibels > decibels + 20
