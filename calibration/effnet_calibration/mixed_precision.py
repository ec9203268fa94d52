"""The fewest tensors to keep in 16 bit, so that the loss stays within a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_calibration.calibrate import correct
from effnet_calibration.estimated_costs import estimate_costs
from effnet_calibration.fewest import enough_for, fewest
from effnet_calibration.loss_meter import LossMeter
from effnet_calibration.path import STEM
from effnet_calibration.quantized import apply_quantization
from effnet_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    from effnet_calibration.outputs import ExactOutputs
    from effnet_calibration.quantization import Quantization
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.parity import Gate, ParityResult
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Pictures
    from effnet_edge.progress import Progress

COST_IMAGES = 32


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
        tensors: how many there are, kept or not.
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
    exact: ExactOutputs | None = None,
) -> MixedPrecision:
    """Keep as few layers in 16 bit as a budget on these pictures allows, the costliest first.

    The costs of single layers tell about how many are enough. Every attempt costs a bias
    correction, in the course of which the loss is measured, too.

    Args:
        network: folded.
        quantization: its own; what it keeps stays kept.
        pictures: those of the calibration; labelled, where the budget is of accuracy.
        budget: limits on the simulated network against the exact one.
        exact: what the calibration observed of the network on these pictures, where it is at hand.

    Raises:
        UsageError: the budget needs labels and the pictures have none, or a label is no class.
    """
    meter = LossMeter(network, pictures, preprocessing, exact)
    quantized = apply_quantization(network, quantization)
    names = {*quantized.weights, *([STEM] if quantized.pixel_stem else [])}
    start = Attempt(quantization, meter.measure(quantization, _told(progress, 1, quantization)))
    attempts, best = 1, start

    def attempt(count: int) -> Attempt:
        nonlocal attempts
        attempts += 1
        wanted = quantization.keeping((*quantization.kept, *costliest[:count]))
        told = _told(progress, attempts, wanted)
        candidate, logits = correct(network, wanted, meter.exact, told)
        return Attempt(candidate, meter.measure(candidate, told, logits))

    def is_within(candidate: Attempt) -> bool:
        return not budget.check(candidate.loss)

    if not is_within(start):
        costs = estimate_costs(network, quantization, meter.spread(COST_IMAGES), progress)
        costliest = sorted(names, key=lambda name: costs[name], reverse=True)
        guess = enough_for([costs[name] for name in costliest], _allowed_share(budget, start.loss))
        best = fewest(len(costliest) - 1, attempt, is_within, guess)
    tensors = len(names) + len(quantization.kept)
    return MixedPrecision(start, best, is_within(best), attempts, tensors)


def _allowed_share(budget: Gate, loss: ParityResult) -> float:
    """The share of a loss's divergence that the budget allows; 1 where that cannot be told."""
    shares = [1.0]
    if budget.max_kl is not None and loss.kl:
        shares.append(budget.max_kl / loss.kl)
    if budget.max_nrmse is not None and loss.nrmse:
        shares.append((budget.max_nrmse / loss.nrmse) ** 2)
    return min(shares)


def _told(progress: Progress, number: int, quantization: Quantization) -> Progress:
    kept = len(quantization.kept)

    def told(stage: str, done: int, total: int) -> None:
        progress(f"attempt {number}, {kept} in 16 bit, {stage}", done, total)

    return told
