"""Networks whose every output is rounded: changed by factors only, and close to the original."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from later import quick
from tiny_networks import PREPROCESSING, Smooth, normalized, random_network

from effnet_calibration.bias_correction import correct_biases
from effnet_calibration.calibrate import observe, quantize
from effnet_calibration.equalized_activation import (
    EQUALIZED,
    FACTOR_STEPS,
    GATES,
    SATURATION,
    EqualizedSiLU,
    equalize_activation,
    equalize_gate,
    on_steps,
)
from effnet_calibration.errors import CalibrationError
from effnet_calibration.flow import Held, after, computed
from effnet_calibration.output_grids import can_be_scaled
from effnet_calibration.outputs import ExactOutputs
from effnet_calibration.path import NetworkPath
from effnet_calibration.quantization import REFITTED, Quantization, from_columns, to_columns
from effnet_calibration.quantized import apply, apply_quantization, changed
from effnet_calibration.rounded_hard_swish import HARD_SWISHES
from effnet_calibration.schemes import ASYMMETRIC_INT8_OUTPUTS
from effnet_calibration.steps import CHANGES
from effnet_calibration.table import CalibrationSet, CalibrationTable, identify
from effnet_calibration.work import Settings
from effnet_edge.parity.measures.metrics import sqnr_db

if TYPE_CHECKING:
    from effnet_edge.model.network import EfficientNet

pytestmark = pytest.mark.filterwarnings("ignore::effnet_calibration.errors.CalibrationWarning")

SAME = 65.0
VARIANTS = quick(["b0"], ["b0", "lite0"], "sample")


@pytest.fixture(scope="module", params=VARIANTS)
def quantized(request: pytest.FixtureRequest) -> tuple[EfficientNet, Quantization]:
    network = random_network(request.param)
    observed = observe(network, Smooth(16), PREPROCESSING)
    uncorrected = Settings(correct_biases=False)
    return network, quantize(observed, ASYMMETRIC_INT8_OUTPUTS, uncorrected)


def logits(network: EfficientNet) -> torch.Tensor:
    with torch.no_grad():
        return network(normalized(8, seed=5))


def test_a_grid_of_what_the_network_lacks_is_refused(
    quantized: tuple[EfficientNet, Quantization],
) -> None:
    network, quantization = quantized
    grid = next(iter(quantization.outputs.values()))
    with pytest.raises(CalibrationError, match=r"an output of stages\.9, which the network lacks"):
        apply_quantization(
            network, quantization.rounding({**quantization.outputs, "stages.9": grid})
        )


@pytest.mark.parametrize("name", ["stages.2.0.project.conv", "stem.act", "head.act"])
def test_a_table_that_lacks_what_a_layer_gives_is_refused(
    quantized: tuple[EfficientNet, Quantization], name: str
) -> None:
    """Without it the layer would give floating point, and all else of the model hold its gates."""
    network, quantization = quantized
    images = CalibrationSet("none", 16, "0" * 64)
    scheme = ASYMMETRIC_INT8_OUTPUTS
    whole = CalibrationTable(identify(network), images, {}, {}, {scheme.name: quantization})
    apply(network, whole, scheme)
    outputs = {key: grid for key, grid in quantization.outputs.items() if key != name}
    lacking = replace(whole, quantizations={scheme.name: quantization.rounding(outputs)})
    with pytest.raises(CalibrationError, match=f"lacks {name}: calibrate again"):
        apply(network, lacking, scheme)


def test_changes_are_made_in_the_networks_order_whatever_the_tables_is(
    quantized: tuple[EfficientNet, Quantization], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rounds the weights to float32, and their last bits depend on which came first."""
    network, quantization = quantized
    made: list[str] = []
    monkeypatch.setattr(
        "effnet_calibration.quantized.CHANGES",
        {name: lambda *given: made.append(given[2].name) for name in CHANGES},
    )
    turned = replace(quantization, layers=dict(reversed(quantization.layers.items())))
    changed(network, turned)
    backwards = list(made)
    made.clear()
    changed(network, quantization)
    assert len(made) > 10
    assert backwards == made


def test_the_factors_change_nothing(quantized: tuple[EfficientNet, Quantization]) -> None:
    network, quantization = quantized
    assert quantization.changes(EQUALIZED)
    exact = quantization
    for change in (SATURATION, HARD_SWISHES, REFITTED):
        exact = exact.changing(change, {})
    assert sqnr_db(logits(network), logits(changed(network, exact))) > SAME


def test_what_sigmoids_lose_is_made_up_for(
    quantized: tuple[EfficientNet, Quantization],
) -> None:
    network, quantization = quantized
    made_up = quantization.changes(SATURATION)
    assert bool(made_up) == (network.activation == "silu")
    for factors in made_up.values():
        assert min(factors) > 0.995
        assert max(factors) < 1.005
    if made_up:
        assert max(max(each) for each in made_up.values()) > 1.001


def test_rounding_loses_little_and_without_factors_more(
    quantized: tuple[EfficientNet, Quantization],
) -> None:
    network, quantization = quantized
    exact = logits(network)
    simulated = apply_quantization(network, quantization).simulated()
    # Untrained blocks amplify any noise.
    assert sqnr_db(exact, logits(simulated)) > 3.0
    coarser = {
        name: replace(each, scale=each.scale * 8) for name, each in quantization.outputs.items()
    }
    worse = apply_quantization(network, quantization.rounding(coarser)).simulated()
    assert sqnr_db(exact, logits(worse)) < sqnr_db(exact, logits(simulated)) - 1


def test_every_output_is_on_its_grid(quantized: tuple[EfficientNet, Quantization]) -> None:
    network, quantization = quantized
    applied = apply_quantization(network, quantization)
    assert not applied.inputs
    simulated, seen = applied.simulated(), {}
    convolutions = {layer.name: layer.activation for layer in NetworkPath.of(network)}
    for name in applied.outputs:
        if convolutions.get(name) is None:
            simulated.get_submodule(name).register_forward_hook(
                lambda _, __, output, name=name: seen.update({name: output})
            )
    logits(simulated)
    assert len(seen) > 30
    for name, values in seen.items():
        grid = applied.outputs[name]
        integers = values / grid.scale + grid.zero_point
        assert torch.allclose(integers, integers.round(), atol=1e-2), name
        assert integers.min() >= grid.minimum - 1e-2, name
        assert integers.max() <= grid.maximum + 1e-2, name


def test_what_is_held_on_its_way_is_rounded_where_the_network_rounds(
    quantized: tuple[EfficientNet, Quantization],
) -> None:
    network, quantization = quantized
    simulated = apply_quantization(network, quantization).simulated()
    batch = normalized(8, seed=5).contiguous(memory_format=torch.channels_last)
    held = Held(batch, None)
    with torch.no_grad():
        for layer in NetworkPath.of(simulated).main:
            held = after(simulated, layer, computed(simulated, layer, held))
        assert torch.equal(held.value, simulated(batch))


def test_a_table_keeps_the_grids(quantized: tuple[EfficientNet, Quantization]) -> None:
    network, quantization = quantized
    pictures = CalibrationSet("smooth fields", 16, "0" * 64)
    held = {quantization.scheme: quantization}
    table = CalibrationTable(identify(network), pictures, {}, {}, held)
    read = CalibrationTable.from_json(table.to_json().encode(), "table.json")
    assert read == table
    outputs = apply(network, read, ASYMMETRIC_INT8_OUTPUTS).outputs
    assert outputs == apply_quantization(network, quantization).outputs
    without = quantization.rounding({})
    assert "outputs" not in to_columns(without)


def test_columns_come_back(quantized: tuple[EfficientNet, Quantization]) -> None:
    assert from_columns(to_columns(quantized[1])) == quantized[1]


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20))
def test_factors_are_few_steps_and_none_shrinks(values: list[float]) -> None:
    factors = torch.tensor(values, dtype=torch.float64)
    stepped = on_steps(factors)
    steps = stepped / (stepped.max() / FACTOR_STEPS)
    assert torch.allclose(steps, steps.round(), atol=1e-6)
    assert steps.min() > 0.5
    assert (stepped >= factors * 0.98).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_factors_change_nothing(variant: str) -> None:
    network = random_network(variant)
    copied, path = copy.deepcopy(network), NetworkPath.of(network)
    for layer in path.main:
        if layer.kind in {"stem", "expand", "depthwise"}:
            channels = len(layer.module(network).weight)
            equalize_activation(copied, path, layer, tuple(torch.rand(channels) + 0.5))
        if layer.gate is not None:
            reader = path.reader(layer)
            equalize_gate(copied, path, reader, tuple(torch.rand(channels) + 0.5))
    assert sqnr_db(logits(network), logits(copied)) > SAME


def test_what_does_not_fit_is_refused() -> None:
    network = random_network()
    path = NetworkPath.of(network)
    with pytest.raises(CalibrationError, match=r"factors of stem\.conv do not fit"):
        equalize_activation(network, path, path["stem.conv"], (1.0, 2.0))
    lite = random_network("lite0")
    lite_path = NetworkPath.of(lite)
    layer = next(each for each in lite_path.of_kind("project"))
    with pytest.raises(CalibrationError, match="there is none"):
        equalize_gate(lite, lite_path, layer, (1.0,))


def test_a_factor_of_one_costs_no_multiplication() -> None:
    names = {name for name, _ in EqualizedSiLU(torch.ones(4)).named_modules()}
    assert "real.factors" not in names
    x = torch.randn(2, 4, 3, 3)
    same = torch.nn.functional.silu(x)
    torch.testing.assert_close(EqualizedSiLU(torch.ones(4))(x), same)
    factors = torch.tensor([1.0, 2.0, 0.5, 3.0]).view(1, -1, 1, 1)
    torch.testing.assert_close(EqualizedSiLU(factors.flatten())(x / factors) * factors, same)


def test_what_holds_enough_alone_is_spared_the_product(
    quantized: tuple[EfficientNet, Quantization],
) -> None:
    network, quantization = quantized
    equalized, layers = quantization.changes(EQUALIZED), NetworkPath.of(network).main
    spared = {name for name, factors in equalized.items() if set(factors) == {1.0}}
    joined = {each.name for each in layers if each.name in equalized}
    joined -= {each.name for each in layers if can_be_scaled(each, layers)}
    assert joined <= spared < equalized.keys()
    assert joined < spared or network.activation == "relu6"
    outputs = apply_quantization(network, quantization).outputs
    products = [name for name in outputs if name.endswith(".real")]
    assert len(products) == (len(equalized) - len(spared)) * (network.activation == "silu")


def test_gates_have_factors_where_there_are_gates(
    quantized: tuple[EfficientNet, Quantization],
) -> None:
    network, quantization = quantized
    gated = [layer for layer in NetworkPath.of(network) if layer.gate is not None]
    assert len(quantization.changes(GATES)) == len(gated)


def test_biases_give_relus_their_means_back() -> None:
    network = random_network("lite0")
    observed = observe(network, Smooth(16), PREPROCESSING)
    exact = observed.exact
    off = {}
    for told, means in (("behind", exact.activation_means), ("before", {})):
        seen = replace(observed, exact=replace(exact, activation_means=means))
        decided = quantize(seen, ASYMMETRIC_INT8_OUTPUTS)
        simulated = apply_quantization(network, decided).simulated()
        found = ExactOutputs.of(simulated, exact.batches).activation_means
        off[told] = sum(
            float((found[name] * torch.tensor(factors) - exact.activation_means[name]).abs().mean())
            for name, factors in decided.changes(EQUALIZED).items()
            # Untrained, noise alone is larger farther on.
            if int(name.split(".")[1] if name.startswith("stages") else 9) < 3
        )
    assert len(exact.activation_means) > 10
    assert off["behind"] < 0.75 * off["before"]
    assert not observe(random_network("b0"), Smooth(16), PREPROCESSING).exact.activation_means


@pytest.mark.parametrize("held_bytes", [0, 1 << 30])
def test_memory_does_not_change_biases_behind_relus(held_bytes: int) -> None:
    network = random_network("lite0")
    exact = ExactOutputs.of(network, [normalized(8), normalized(8, seed=2)])
    shifted = copy.deepcopy(network)
    for layer in NetworkPath.of(shifted).main:
        bias = layer.module(shifted).bias
        assert bias is not None
        bias.data += 0.01
    found = correct_biases(exact, shifted, held_bytes=held_bytes)
    restored = torch.cat([shifted(normalized(8)), shifted(normalized(8, seed=2))])
    assert sqnr_db(exact.logits, found.logits) > 45
    assert sqnr_db(found.logits, restored.detach()) > SAME
