from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from later import quick
from tiny_networks import PREPROCESSING, Smooth, normalized

from effnet_calibration.activation_fitting import SHARE
from effnet_calibration.calibrate import Observed, observe, quantize, tabulate
from effnet_calibration.errors import CalibrationError
from effnet_calibration.output_scales import AS_IT_IS, output_scales
from effnet_calibration.path import NetworkPath
from effnet_calibration.quantization import ACTIVATIONS, REFITTED, Quantization
from effnet_calibration.quantized import apply, changed, simulate
from effnet_calibration.refitting import decoded
from effnet_calibration.schemes import (
    ASYMMETRIC_INT8_OUTPUTS,
    ASYMMETRIC_UINT8,
    FLOATING_POINT,
)
from effnet_calibration.table import CalibrationTable, difference
from effnet_calibration.work import Settings
from effnet_edge.parity.measures.metrics import sqnr_db

if TYPE_CHECKING:
    from effnet_calibration.path import Linear
    from effnet_calibration.schemes import QuantizationScheme
    from effnet_edge.model.network import EfficientNet

FITTED = Settings(fitted_share=SHARE)
PROJECTION = "stages.0.0.project.conv"

by_scheme = pytest.mark.parametrize(
    "scheme",
    quick([FLOATING_POINT], [ASYMMETRIC_UINT8, ASYMMETRIC_INT8_OUTPUTS], "sample"),
    ids=lambda each: each.name,
)

pytestmark = pytest.mark.filterwarnings("ignore::effnet_calibration.errors.CalibrationWarning")


@pytest.fixture(scope="module")
def observed(network: EfficientNet) -> Observed:
    return observe(network, Smooth(32), PREPROCESSING)


def packed(numbers: np.ndarray) -> str:
    return base64.b64encode(numbers.astype("<f2").tobytes()).decode("ascii")


def output_of(network: EfficientNet, name: str, batch: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    module = network.get_submodule(name)
    handle = module.register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    with torch.inference_mode():
        network(batch)
    handle.remove()
    return seen[0]


def any_change(module: Linear) -> tuple[str, torch.Tensor, torch.Tensor]:
    """As a table holds it, and what that is: of the weights, and of the biases."""
    count = module.weight.numel()
    numbers = np.linspace(-1, 1, count + len(module.weight))
    added = torch.from_numpy(numbers.astype("<f2").astype(np.float32))
    return packed(numbers), added[:count].view_as(module.weight), added[count:]


@by_scheme
def test_other_pictures_get_answers_that_are_nearer(
    network: EfficientNet, observed: Observed, scheme: QuantizationScheme
) -> None:
    asked = Settings() if scheme.rounds_outputs else FITTED
    refitted = quantize(observed, scheme, asked)
    plain = quantize(observed, scheme, replace(asked, refit_weights=False))
    assert refitted.changes(REFITTED)
    assert not plain.changes(REFITTED)
    batch = normalized(32, seed=9)
    with torch.inference_mode():
        exact = network(batch)
        nearer, near = (
            sqnr_db(exact.numpy(), simulate(network, each)(batch).numpy())
            for each in (refitted, plain)
        )
    assert nearer > near + 0.5


@by_scheme
def test_each_layer_is_nearer_to_its_own_output_with_its_numbers_than_without(
    network: EfficientNet, observed: Observed, scheme: QuantizationScheme
) -> None:
    """In the units in which they are added: a factor that is missing there makes it worse."""
    whole = quantize(observed, scheme, replace(FITTED, correct_biases=False))
    path = NetworkPath.of(network)
    scales = output_scales(whole, path)
    refits = whole.changes(REFITTED)
    names = [name for name in path.names if name in refits]
    batch = torch.cat(list(observed.exact.batches))
    for last in (1, len(names) // 2, len(names) - 1):
        layer = path[names[last]]
        factors, shifts = (each.float().view(-1, 1, 1) for each in scales.get(layer.name, AS_IT_IS))
        wanted = output_of(network, layer.name, batch) * factors + shifts
        before, after = (
            output_of(simulate(network, whole.changing(REFITTED, kept)), layer.name, batch)
            for kept in ({name: refits[name] for name in names[:end]} for end in (last, last + 1))
        )
        mean = (2, 3)
        errors = [
            (each - wanted - (each - wanted).mean(mean, keepdim=True)).square().sum()
            for each in (before, after)
        ]
        assert errors[1] < errors[0], layer.name


def test_with_every_silu_and_unrounded_outputs_the_weights_stay(observed: Observed) -> None:
    assert not quantize(observed, ASYMMETRIC_UINT8).changes(REFITTED)


def test_a_table_makes_the_same_network_bit_for_bit(
    network: EfficientNet, observed: Observed
) -> None:
    table = tabulate(observed, (FLOATING_POINT,), FITTED)
    read = CalibrationTable.from_json(table.to_json())
    assert read == table
    made, again = (
        apply(network, each, FLOATING_POINT).network.state_dict() for each in (table, read)
    )
    assert all(bool((made[name] == again[name]).all()) for name in made)
    # A layer's numbers are one value of the file, and too long a one to be told.
    part = table.quantization(FLOATING_POINT.name)
    stripped = replace(table, quantizations={part.scheme: part.changing(REFITTED, {})})
    told = difference(table, stripped)
    assert told
    assert max(map(len, told)) < 200


def test_the_numbers_are_added_to_what_the_other_changes_leave(network: EfficientNet) -> None:
    """They were calculated there: of a layer whose hard-swish has b, in the units of b · W."""
    layer = NetworkPath.of(network)["stages.0.0.depthwise.conv"]
    module = layer.module(network)
    text, weights, biases = any_change(module)
    b, c = 2.0, 0.5
    channels = len(module.weight)
    hard_swish = (1.0,) * channels + (b,) * channels + (c,) * channels + (0.0,) * channels
    both = Quantization("none").changing(REFITTED, {layer.name: text})
    made = changed(network, both.changing(ACTIVATIONS, {layer.name: hard_swish}))
    moved = layer.module(made)
    assert torch.equal(moved.weight, module.weight * b + weights)
    assert torch.equal(moved.bias, module.bias * b + c + biases)


def test_without_integers_they_are_added_to_weights_that_have_the_factors_before(
    network: EfficientNet,
) -> None:
    module = NetworkPath.of(network)["stages.0.0.depthwise.conv"].module(network)
    text, weights, _ = any_change(module)
    channels, a = len(network.stem.conv.weight), 4.0
    hard_swish = (a,) * channels + (1.0,) * channels + (0.0,) * 2 * channels
    both = Quantization(FLOATING_POINT.name).changing(ACTIVATIONS, {"stem.conv": hard_swish})
    made = changed(network, both.changing(REFITTED, {"stages.0.0.depthwise.conv": text}))
    moved = NetworkPath.of(made)["stages.0.0.depthwise.conv"].module(made)
    assert torch.equal(moved.weight, module.weight * a + weights)


@pytest.mark.parametrize(
    ("damaged", "says"),
    [
        ("not base64!", "damaged"),
        ("AAA=A", "damaged"),
        (packed(np.zeros(7)), "do not fit"),
        (packed(np.full(16 * 32 + 16, np.nan)), "not finite"),
        (packed(np.full(16 * 32 + 16, np.inf)), "not finite"),
        (0.5, "damaged"),
    ],
)
def test_damaged_numbers_are_refused(network: EfficientNet, damaged: str, says: str) -> None:
    module = NetworkPath.of(network)[PROJECTION].module(network)
    assert module.weight.numel() == 16 * 32
    with pytest.raises(CalibrationError, match=says):
        decoded(damaged, module)
    with pytest.raises(CalibrationError, match=says):
        changed(network, Quantization("none").changing(REFITTED, {PROJECTION: damaged}))


def test_a_table_with_numbers_in_the_place_of_the_text_is_refused(observed: Observed) -> None:
    table = tabulate(observed, (FLOATING_POINT,), FITTED)
    part = table.quantization(FLOATING_POINT.name)
    wrong = replace(
        table, quantizations={part.scheme: part.changing(REFITTED, {PROJECTION: (1.0, 2.0)})}
    )
    with pytest.raises(CalibrationError, match="damaged"):
        CalibrationTable.from_json(wrong.to_json())


def test_the_fit_of_hard_swishes_is_the_same_with_and_without(observed: Observed) -> None:
    with_it, without = (
        quantize(observed, FLOATING_POINT, replace(FITTED, refit_weights=each))
        for each in (True, False)
    )
    assert with_it.changes(ACTIVATIONS) == without.changes(ACTIVATIONS)
