from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from later import quick
from tiny_networks import PREPROCESSING, QUICK_SCHEMES, Smooth, normalized, random_network

from effnet_calibration.bias_correction import correct_biases
from effnet_calibration.calibrate import calibrate, correct
from effnet_calibration.errors import CalibrationError
from effnet_calibration.memory import images_in_memory
from effnet_calibration.outputs import ExactOutputs
from effnet_calibration.path import NetworkPath, channels_last
from effnet_calibration.quantization import (
    BIASES,
    CENTRES,
    DEPTHWISE,
    STREAM,
    Quantization,
)
from effnet_calibration.quantized import apply, apply_quantization, changed
from effnet_calibration.schemes import (
    ASYMMETRIC_UINT8,
    SCHEMES,
    SYMMETRIC_INT8,
    SYMMETRIC_INT8_DENSE,
    QuantizationScheme,
)
from effnet_calibration.table import CalibrationTable
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS
from effnet_edge.parity.measures.metrics import sqnr_db

every_scheme = pytest.mark.parametrize(
    "scheme", quick(QUICK_SCHEMES, SCHEMES.values()), ids=lambda scheme: scheme.name
)


@torch.no_grad()
def fidelity(network: EfficientNet, candidate: EfficientNet) -> float:
    batch = normalized(32, seed=3)
    return sqnr_db(network(batch), candidate(batch))


@every_scheme
def test_every_convolution_but_the_stem_has_a_grid_and_all_have_integer_weights(
    network: EfficientNet, table: CalibrationTable, scheme: QuantizationScheme
) -> None:
    quantized = apply(network, table, scheme)
    names = [layer.name for layer in NetworkPath.of(network).inputs]
    if not scheme.quantizes_gates:
        names = [name for name in names if ".se." not in name]
    if not scheme.quantizes_depthwise:
        names = [name for name in names if ".depthwise." not in name]
    if not scheme.quantizes_last_projection:
        names.remove("stages.6.0.project.conv")
    if not scheme.quantizes_classifier:
        names.remove("classifier")
    assert list(quantized.inputs) == ([] if scheme.rounds_outputs else names)
    assert set(quantized.weights) == set(names)
    assert (quantized.pixel_stem is None) == scheme.symmetric
    if scheme.symmetric:
        assert {grid.zero_point for grid in quantized.inputs.values()} == {0}


@every_scheme
def test_the_same_table_gives_the_same_bits(
    network: EfficientNet, table: CalibrationTable, scheme: QuantizationScheme
) -> None:
    again = CalibrationTable.from_json(table.to_json())
    first, second = apply(network, table, scheme), apply(network, again, scheme)
    for (name, mine), theirs in zip(
        first.network.state_dict().items(), second.network.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name
    for name, weight in first.weights.items():
        assert torch.equal(weight.integers, second.weights[name].integers)
        assert torch.equal(weight.scales, second.weights[name].scales)
    assert first.inputs == second.inputs


def test_applying_changes_neither_the_network_nor_the_table(
    network: EfficientNet, table: CalibrationTable
) -> None:
    before, text = copy.deepcopy(network.state_dict()), table.to_json()
    apply(network, table, SYMMETRIC_INT8).simulated()
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert table.to_json() == text


@pytest.mark.parametrize(
    "scheme",
    [
        pytest.param(
            scheme, marks=pytest.mark.sample if scheme is SYMMETRIC_INT8 else pytest.mark.slow
        )
        for scheme in SCHEMES.values()
    ],
    ids=lambda scheme: scheme.name,
)
def test_bias_correction_removes_the_mean_error_of_the_logits(scheme: QuantizationScheme) -> None:
    # Of the seeds, one whose network does not amplify the order in which sums are rounded.
    network, batch = random_network(seed=5), normalized(40)
    made = calibrate(network, Smooth(40), PREPROCESSING, (scheme,))
    corrected = replace(made.quantization(scheme.name), logit_gain=1.0)

    def mean_error(part: Quantization) -> float:
        simulated = apply_quantization(network, part).simulated()
        with torch.no_grad():
            return float((simulated(batch) - network(batch)).mean(0).abs().max())

    assert mean_error(corrected) < 0.5 * mean_error(corrected.uncorrected())


def test_the_centre_comes_back_through_the_rounded_weights(
    network: EfficientNet, table: CalibrationTable
) -> None:
    part = table.quantization(SYMMETRIC_INT8.name).uncorrected()
    quantized, name = apply_quantization(network, part), "stages.4.1.project.conv"
    centre = part.changes(CENTRES)[name]
    assert centre != 0
    reader = quantized.simulated().get_submodule(name)
    # A tensor of zeros arrives as minus the centre, which is on the grid to within half a step.
    zeros = torch.full((1, reader.in_channels, 4, 4), -centre)
    original = network.get_submodule(name)
    torch.testing.assert_close(
        reader(zeros).mean((0, 2, 3)),
        original.bias,
        rtol=1e-3,
        atol=1e-3 * float(original.bias.std()),
    )


def test_a_projection_left_in_16_bit_reads_what_it_would_without_a_centre(
    network: EfficientNet, table: CalibrationTable
) -> None:
    part, name = table.quantization(SYMMETRIC_INT8.name), "stages.4.1.project.conv"
    assert part.changes(CENTRES)[name] != 0
    kept = apply_quantization(network, part.keeping([name])).network
    gates = {block: kept.get_submodule(f"stages.{block}.se") for block in ("4.0", "4.1")}
    assert gates["4.0"].centre is not None
    assert gates["4.1"].centre is None
    read = torch.randn(2, kept.get_submodule(name).in_channels, 4, 4)
    with torch.no_grad():
        centred, plain = (
            each.get_submodule(name)(each.get_submodule("stages.4.1.se")(read))
            for each in (changed(network, part), kept)
        )
    assert sqnr_db(centred, plain) > 80


@pytest.mark.sample
def test_projections_may_share_a_scale_and_compute_the_same(
    network: EfficientNet, table: CalibrationTable
) -> None:
    part = table.quantization(SYMMETRIC_INT8_DENSE.name)
    scales = {each.scale for name, each in part.grids.items() if ".project." in name}
    assert scales == {SYMMETRIC_INT8_DENSE.projection_scale}
    assert part.changes(DEPTHWISE) == {}
    batch = normalized(4, seed=6)
    with torch.no_grad():
        assert sqnr_db(network(batch), changed(network, part.uncorrected())(batch)) > 80


def test_the_simulation_computes_what_integers_would(
    network: EfficientNet, table: CalibrationTable
) -> None:
    """One convolution by integer arithmetic alone, from what a writer of graphs is given."""
    quantized = apply(network, table, ASYMMETRIC_UINT8)
    name = "stages.3.1.expand.conv"
    grid, weight = quantized.inputs[name], quantized.weights[name]
    x = torch.randn(2, 80, 8, 8) * 3
    simulated = quantized.simulated().get_submodule(name)(x)
    integers = (grid.quantize(x) - grid.zero_point).numpy().astype(np.int64)
    products = np.einsum(
        "oi,nihw->nohw", weight.integers[:, :, 0, 0].numpy().astype(np.int64), integers
    )
    real = products * (weight.scales.numpy().astype(np.float64) * grid.scale)[None, :, None, None]
    bias = quantized.network.get_submodule(name).bias
    np.testing.assert_allclose(
        simulated.detach().numpy(), real + bias.numpy()[None, :, None, None], rtol=1e-4, atol=1e-4
    )


def test_correcting_a_planted_shift_finds_it(network: EfficientNet) -> None:
    shifted = copy.deepcopy(network)
    shifted.stages[2][0].project.conv.bias += 0.5
    found = correct_biases(ExactOutputs.of(network, [normalized(8)]), shifted)
    name = "stages.2.0.project.conv"
    torch.testing.assert_close(found.biases[name], torch.full((40,), -0.5), rtol=0, atol=1e-4)
    others = [bias for other, bias in found.biases.items() if other != name]
    assert max(float(bias.abs().max()) for bias in others) < 1e-3
    assert found.logit_gain == pytest.approx(1, abs=1e-4)
    corrected = [name for name in NetworkPath.of(network).names if ".se." not in name]
    assert list(found.biases) == corrected


def test_a_scaled_stream_is_not_taken_for_an_error() -> None:
    network = random_network("b1", seed=2)
    # Nothing is rounded, so nothing is to be corrected.
    factors = {"stages.0.0.project.conv": (0.5,) * 8 + (2.0,) * 8}
    scaled = Quantization(SYMMETRIC_INT8.name).keeping(NetworkPath.of(network).names)
    scaled = scaled.changing(STREAM, factors)
    exact = ExactOutputs.of(network, [normalized(8)])
    biases = correct(network, scaled, exact)[0].changes(BIASES)
    assert max(abs(value) for added in biases.values() for value in added) < 1e-3


def test_pictures_that_do_not_fit_in_memory_are_corrected_just_so(
    network: EfficientNet, table: CalibrationTable
) -> None:
    part = table.quantization(ASYMMETRIC_UINT8.name).uncorrected()
    exact = ExactOutputs.of(channels_last(network), [normalized(6), normalized(6, seed=1)])

    def first_biases(held_bytes: int) -> list[torch.Tensor]:
        simulated = apply_quantization(network, part).simulated()
        found = correct_biases(exact, simulated, held_bytes=held_bytes)
        return list(found.biases.values())[:9]

    # A block's output of 12 pictures fits into 1 MB here, the expanded tensors before it do not.
    for held, recomputed in zip(first_biases(1 << 30), first_biases(1 << 20), strict=True):
        # Another order of summation moves some values across the edge between two integers, and
        # this network amplifies that from block to block.
        assert (held - recomputed).norm() < 0.02 * held.norm()


def test_a_planted_gain_is_found(network: EfficientNet) -> None:
    weaker = copy.deepcopy(network)
    weaker.classifier.weight *= 0.8
    found = correct_biases(ExactOutputs.of(network, [normalized(16)]), weaker)
    assert found.logit_gain == pytest.approx(0.8, abs=0.1)
    assert len(found.logits) == 16


def test_large_networks_are_corrected_on_fewer_pictures() -> None:
    small = EfficientNet(VARIANTS["b0"])
    large = EfficientNet(VARIANTS["b3"])
    assert images_in_memory(small) >= 200
    assert images_in_memory(large) < images_in_memory(small)


def test_kept_layers_have_no_grid(network: EfficientNet, table: CalibrationTable) -> None:
    kept = ("stages.6.0.project.conv", "classifier")
    part = table.quantization(SYMMETRIC_INT8.name).keeping(kept)
    quantized = apply_quantization(network, part)
    assert not set(kept) & {*quantized.inputs, *quantized.weights}


def test_keeping_every_layer_gives_the_network_back(
    network: EfficientNet, table: CalibrationTable
) -> None:
    part = table.quantization(ASYMMETRIC_UINT8.name)
    bare = part.uncorrected().keeping(NetworkPath.of(network).names)
    assert fidelity(network, apply_quantization(network, bare).simulated()) > 80


def test_a_table_of_other_weights_is_refused(table: CalibrationTable) -> None:
    with pytest.raises(CalibrationError, match="other weights"):
        apply(random_network(seed=1), table, ASYMMETRIC_UINT8)


def test_factors_of_the_wrong_length_are_refused(
    network: EfficientNet, table: CalibrationTable
) -> None:
    part = table.quantization(ASYMMETRIC_UINT8.name)
    factors = part.changes(DEPTHWISE) | {"stages.3.0.depthwise.conv": (1.0, 2.0, 3.0)}
    wrong = part.changing(DEPTHWISE, factors)
    with pytest.raises(CalibrationError, match="do not fit"):
        apply_quantization(network, wrong)


def test_a_missing_tensor_is_named(network: EfficientNet, table: CalibrationTable) -> None:
    part = table.quantization(ASYMMETRIC_UINT8.name)
    grids = {name: grid for name, grid in part.grids.items() if name != "head.conv"}
    with pytest.raises(CalibrationError, match=r"head\.conv"):
        apply_quantization(network, part.gridded(grids))


def test_a_change_that_no_step_makes_is_named(
    network: EfficientNet, table: CalibrationTable
) -> None:
    part = table.quantization(ASYMMETRIC_UINT8.name)
    later = part.changing("rotation", {"head.conv": (1.0,)})
    with pytest.raises(CalibrationError, match="'rotation', which this effnet-edge does not know"):
        apply_quantization(network, later)


def test_a_layer_that_the_network_lacks_is_named(
    network: EfficientNet, table: CalibrationTable
) -> None:
    part = table.quantization(ASYMMETRIC_UINT8.name).keeping(["stages.9.0.expand.conv"])
    with pytest.raises(CalibrationError, match=r"stages\.9\.0\.expand\.conv, which the network"):
        apply_quantization(network, part)
