from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from tiny_networks import PREPROCESSING, SIDE, Smooth, normalized

from effnet_calibration.calibrate import calibrate
from effnet_calibration.loss_meter import LossMeter
from effnet_calibration.memory import batch_size
from effnet_calibration.mixed_precision import MixedPrecision, keep_for_budget
from effnet_calibration.path import NetworkPath
from effnet_calibration.quantization import BIASES
from effnet_calibration.quantized import apply_quantization
from effnet_calibration.schemes import ASYMMETRIC_UINT8
from effnet_edge.errors import UsageError
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.parity import Gate
from effnet_edge.parity.measures.metrics import kl_divergence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet_calibration.quantization import Quantization
    from effnet_calibration.table import CalibrationTable
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.sets import Batch

BAD = ("stages.4.1.project.conv", "stages.1.0.depthwise.conv")


class Labelled(Smooth):
    """Pictures with the labels given."""

    def __init__(self, count: int, labels: np.ndarray) -> None:
        super().__init__(count)
        self.classes = labels

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, skipped: list[str] | None = None
    ) -> Iterator[Batch]:
        start = 0
        for pixels, _ in super().batches(preprocessing, batch_size, skipped):
            yield pixels, self.classes[start : start + len(pixels)]
            start += len(pixels)


@pytest.fixture(scope="module")
def network() -> EfficientNet:
    """Trained: in a random one, what is kept decides less than the order of summation does."""
    return fold_batch_norm(load_source(NetworkRequest("b0", resolution=SIDE)).network)


@pytest.fixture(scope="module")
def table(network: EfficientNet) -> CalibrationTable:
    return calibrate(network, Smooth(40), PREPROCESSING, (ASYMMETRIC_UINT8,))


@pytest.fixture(scope="module")
def broken(table: CalibrationTable) -> Quantization:
    """A quantization with two grids that are much too coarse."""
    part = table.quantization(ASYMMETRIC_UINT8.name)
    grids = part.grids
    coarse = {name: replace(grids[name], scale=grids[name].scale * 300) for name in BAD}
    return part.gridded({**grids, **coarse})


@pytest.fixture(scope="module")
def mixed(network: EfficientNet, table: CalibrationTable, broken: Quantization) -> MixedPrecision:
    good = LossMeter(network, Smooth(40), PREPROCESSING).measure(
        table.quantization(ASYMMETRIC_UINT8.name)
    )
    budget = Gate(max_kl=2 * good.kl)
    return keep_for_budget(network, broken, Smooth(40), PREPROCESSING, budget)


@pytest.mark.slow
def test_the_planted_bad_tensors_are_kept_and_no_others(mixed: MixedPrecision) -> None:
    assert mixed.within_budget
    assert set(mixed.best.quantization.kept) == set(BAD)
    assert mixed.start.quantization.kept == ()
    assert mixed.start.loss.kl > 50 * mixed.best.loss.kl
    assert mixed.attempts == 3  # none, one, two


@pytest.mark.slow
def test_what_is_reported_is_what_the_quantization_gives_again(
    network: EfficientNet, mixed: MixedPrecision
) -> None:
    simulated = apply_quantization(network, mixed.best.quantization).simulated()
    with torch.no_grad():
        exact, candidate = (each(normalized(40)) for each in (network, simulated))
    # Another order of summation moves some values across the edge between two integers.
    assert mixed.best.loss.kl == pytest.approx(kl_divergence(exact, candidate), rel=0.2)


@pytest.mark.slow
def test_biases_are_corrected_for_what_is_kept(broken: Quantization, mixed: MixedPrecision) -> None:
    best, before = (each.changes(BIASES) for each in (mixed.best.quantization, broken))
    assert best != before
    after = "stages.6.0.project.conv"
    assert best[after] != before[after]


@pytest.mark.slow
def test_a_budget_that_is_met_already_keeps_nothing(
    network: EfficientNet, table: CalibrationTable
) -> None:
    part = table.quantization(ASYMMETRIC_UINT8.name)
    found = keep_for_budget(network, part, Smooth(10), PREPROCESSING, Gate(max_kl=10.0))
    assert found.best.quantization is part
    assert (found.attempts, found.within_budget) == (1, True)
    assert found.tensors == len(NetworkPath.of(network).names)


@pytest.mark.slow
def test_the_drop_is_counted_on_the_labels(network: EfficientNet, broken: Quantization) -> None:
    simulated = apply_quantization(network, broken).simulated()
    # In the meter's batches: another order of summation moves some values across an edge.
    batches = torch.split(normalized(40), batch_size(network))
    batches = [each.contiguous(memory_format=torch.channels_last) for each in batches]
    with torch.no_grad():
        exact = torch.cat([network(each).argmax(1) for each in batches]).numpy()
        quantized = torch.cat([simulated(each).argmax(1) for each in batches])
    labels = np.where(np.arange(40) < 30, exact, 0)

    loss = LossMeter(network, Labelled(40, labels), PREPROCESSING).measure(broken)

    expected = accuracy_score(labels, exact) - accuracy_score(labels, quantized.numpy())
    assert loss.accuracy is not None
    assert loss.accuracy.top1.points == pytest.approx(100 * expected)
    low, high = loss.accuracy.top1.interval
    assert low < loss.accuracy.top1.points < high


@pytest.mark.slow
def test_a_drop_without_labels_is_bad_use(network: EfficientNet, table: CalibrationTable) -> None:
    part = table.quantization(ASYMMETRIC_UINT8.name)
    with pytest.raises(UsageError, match="label"):
        keep_for_budget(network, part, Smooth(10), PREPROCESSING, Gate(max_drop=1.0))


@pytest.mark.slow
def test_a_label_that_is_no_class_is_bad_use(
    network: EfficientNet, table: CalibrationTable
) -> None:
    pictures = Labelled(10, np.full(10, 9999))
    part = table.quantization(ASYMMETRIC_UINT8.name)
    with pytest.raises(UsageError, match="label 9999 is outside the model's 1000 classes"):
        keep_for_budget(network, part, pictures, PREPROCESSING, Gate(max_drop=1.0))


@pytest.mark.slow
def test_progress_names_the_attempt_and_ends(network: EfficientNet, broken: Quantization) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        seen[stage] = (done, total)

    pictures = Smooth(10)
    never = Gate(max_kl=0.0)
    found = keep_for_budget(network, broken, pictures, PREPROCESSING, never, progress)
    assert not found.within_budget
    assert len(found.best.quantization.kept) == found.tensors - 1
    assert all(done == total for done, total in seen.values())
    assert "attempt 1, 0 in 16 bit, loss" in seen
    assert f"attempt {found.attempts}, {found.tensors - 1} in 16 bit, bias correction" in seen
    assert "cost of each tensor" in seen
