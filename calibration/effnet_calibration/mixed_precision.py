"""The fewest tensors to keep in 16 bit, so that the loss stays within a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from effnet_calibration.calibrate import correct
from effnet_calibration.errors import CalibrationError
from effnet_calibration.memory import batch_size, images_in_memory
from effnet_calibration.outputs import ExactOutputs
from effnet_calibration.path import NetworkPath, channels_last
from effnet_calibration.quantized import simulate
from effnet_calibration.sensitivity import sensitivity
from effnet_edge.parity import Comparison, ParityResult
from effnet_edge.pictures.image import normalize
from effnet_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from effnet_calibration.quantization import Quantization
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.parity import Gate
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Batch, Pictures
    from effnet_edge.progress import Progress

SENSITIVITY_IMAGES = 32


@dataclass(frozen=True)
class Attempt:
    """One quantization, and what is lost with it."""

    quantization: Quantization
    loss: ParityResult


@dataclass(frozen=True)
class MixedPrecision:
    """The outcome of a search.

    Attributes:
        start: as it came, with what its scheme keeps.
        best: with the fewest layers kept beside those that met the budget or, where nothing did,
            with all but one.
        within_budget: whether `best` meets it.
        attempts: how many quantizations were measured.
        tensors: how many there are to keep.
    """

    start: Attempt
    best: Attempt
    within_budget: bool
    attempts: int
    tensors: int

    @property
    def keeps_more(self) -> bool:
        """Whether the budget left more in 16 bit than the quantization did."""
        return self.best is not self.start


def keep_for_budget(
    network: EfficientNet,
    quantization: Quantization,
    pictures: Pictures,
    preprocessing: Preprocessing,
    budget: Gate,
    progress: Progress = no_progress,
) -> MixedPrecision:
    """Keep as few layers in 16 bit as a budget on these pictures allows, the costliest first.

    Every attempt costs a bias correction and a pass over the pictures; there are at most
    2·log₂ of the number of layers of them.

    Args:
        network: folded.
        quantization: its own; what it keeps stays kept.
        pictures: those of the calibration; labelled, where the budget is of accuracy.
        budget: limits on the simulated network against the exact one.

    Raises:
        UsageError: the budget needs labels and the pictures have none, or a label is no class.
    """
    meter = LossMeter(network, pictures, preprocessing)
    exact = ExactOutputs.of(channels_last(network), meter.normalized(images_in_memory(network)))
    tried = 0

    def attempt(kept: Sequence[str]) -> Attempt:
        nonlocal tried
        tried += 1
        told = _named_attempt(progress, tried, len(quantization.kept) + len(kept))
        candidate = quantization
        if kept:
            candidate = correct(
                network, quantization.keeping((*quantization.kept, *kept)), exact, told
            )
        return Attempt(candidate, meter.measure(candidate, told))

    def within_budget(candidate: Attempt) -> bool:
        return not budget.check(candidate.loss)

    start = best = attempt(())
    names = [layer.name for layer in NetworkPath.of(network).inputs]
    if not within_budget(start):
        costs = sensitivity(network, quantization, meter.spread(SENSITIVITY_IMAGES), progress)
        # Only the stem's weights are quantized: keeping it gains next to nothing.
        costliest = [cost.name for cost in costs if cost.name in names]
        best = fewest(costliest, attempt, within_budget)
    return MixedPrecision(start, best, within_budget(best), tried, len(names))


def fewest(
    costliest: Sequence[str],
    attempt: Callable[[Sequence[str]], Attempt],
    within_budget: Callable[[Attempt], bool],
) -> Attempt:
    """The attempt that keeps the fewest of `costliest`, from the first on, and meets the budget.

    Doubles the number until the budget is met and bisects between the last two: few attempts
    where few layers are enough. It assumes that keeping more never costs more; where that is not
    so the attempt found still meets the budget, but fewer might have. One layer at least stays
    quantized: if even that does not meet the budget, it is that attempt.
    """
    most, low, high = len(costliest) - 1, 0, 1
    found = attempt(costliest[: min(high, most)])
    while not within_budget(found) and high < most:
        low, high = high, min(2 * high, most)
        found = attempt(costliest[:high])
    if not within_budget(found):
        return found
    while high - low > 1:
        middle = (low + high) // 2
        candidate = attempt(costliest[:middle])
        if within_budget(candidate):
            found, high = candidate, middle
        else:
            low = middle
    return found


class LossMeter:
    """Measures what a network loses by a quantization, in float32 simulation.

    The pictures are held as they are read, 8 bits a value; the exact logits are computed once.
    """

    def __init__(
        self, network: EfficientNet, pictures: Pictures, preprocessing: Preprocessing
    ) -> None:
        self._network = channels_last(network)
        self._preprocessing = preprocessing
        self._source = pictures.source
        self._batch_size = batch_size(network)
        # What cannot be read was counted and judged when the network was calibrated.
        self._batches: list[Batch] = list(pictures.batches(preprocessing, self._batch_size, []))
        self._images = sum(len(pixels) for pixels, _ in self._batches)
        if not self._images:
            raise CalibrationError(f"{pictures.source} has no pictures to measure the loss on")
        self._exact = [_logits(self._network, batch) for batch in self.normalized(self._images)]

    def normalized(self, limit: int) -> Iterator[Tensor]:
        """The first `limit` pictures in batches, float32 (n, 3, H, W)."""
        for pixels, _ in self._batches:
            part, limit = pixels[:limit], max(0, limit - len(pixels))
            if len(part):
                yield torch.from_numpy(normalize(part, self._preprocessing))

    def spread(self, count: int) -> list[Tensor]:
        """At most `count` pictures from all over the set, in batches, float32 (n, 3, H, W)."""
        step = max(1, self._images // count)
        pixels = np.concatenate([pixels for pixels, _ in self._batches])[::step][:count]
        normalized = torch.from_numpy(normalize(pixels, self._preprocessing))
        return list(torch.split(normalized, self._batch_size))

    def measure(self, quantization: Quantization, progress: Progress = no_progress) -> ParityResult:
        """The loss by one quantization, whose biases are taken as they are."""
        simulated = simulate(self._network, quantization)
        comparison = Comparison(
            "torch", "simulated INT8", "FP32", "INT8", self._network.output_kind
        )
        batches = zip(self._exact, self._batches, self.normalized(self._images), strict=True)
        for exact, (_, labels), batch in batches:
            comparison.update(exact, _logits(simulated, batch), labels)
            progress("loss", comparison.images, self._images)
        return comparison.result(self._source)


def _logits(network: EfficientNet, batch: Tensor) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits: Tensor = network(batch.contiguous(memory_format=torch.channels_last))
    return logits.numpy()


def _named_attempt(progress: Progress, number: int, kept: int) -> Progress:
    def told(stage: str, done: int, total: int) -> None:
        progress(f"attempt {number}, {kept} in 16 bit, {stage}", done, total)

    return told
