"""What each tensor's quantization costs, and which tensors to keep in 16 bit for a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from effnet_calibration.quantized import apply_quantization
from effnet_calibration.sites import CLASSIFIER, blocks, channels_last, sites
from effnet_edge.parity.metrics import kl_divergence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from effnet_calibration.calibrate import Progress
    from effnet_calibration.table import Quantization
    from effnet_edge.model.network import EfficientNet


@dataclass(frozen=True)
class TensorCost:
    """One layer: the KL divergence, nats, of quantizing its input and weights and nothing else."""

    name: str
    kl: float


@dataclass(frozen=True)
class MixedPrecision:
    """A choice of layers left in 16 bit.

    Attributes:
        quantization: with `kept` set.
        cost: what was measured with it, in the measure's unit.
        within_budget: whether the cost is at most the budget. Where it is not, nothing is
            quantized any more and the rest of the chain is to blame.
    """

    quantization: Quantization
    cost: float
    within_budget: bool


def sensitivity(
    network: EfficientNet,
    quantization: Quantization,
    batches: Sequence[Tensor],
    progress: Progress | None = None,
) -> list[TensorCost]:
    """The cost of every quantized tensor, dearest first.

    Args:
        network: the folded network that the quantization was made for.
        batches: normalized pictures, float32 (N, 3, R, R); 32 to 64 in all are enough.
        progress: told after each batch.
    """
    # Corrected biases are for a network that is quantized before the layer too.
    quantized = apply_quantization(network, replace(quantization, biases={}, logit_gain=1.0))
    exact, rounded = channels_last(quantized.network), quantized.simulated()
    names = [site.name for site in sites(network) if site.name not in quantization.kept]
    exact_logits: list[Tensor] = []
    logits: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.inference_mode():
        for done, batch in enumerate(batches):
            run = _Alternatives(exact, rounded, names)
            run.pass_through(batch.contiguous(memory_format=torch.channels_last))
            exact_logits.append(run.exact_logits)
            for name, alternative in run.logits.items():
                logits[name].append(alternative)
            if progress is not None:
                progress("sensitivity", done + 1, len(batches))
    reference = torch.cat(exact_logits).numpy()
    costs = [
        TensorCost(name, kl_divergence(reference, torch.cat(each).numpy()))
        for name, each in logits.items()
    ]
    return sorted(costs, key=lambda cost: cost.kl, reverse=True)


def least_kept(
    quantization: Quantization,
    costs: Sequence[TensorCost],
    correct: Callable[[Quantization], Quantization],
    measure: Callable[[Quantization], float],
    budget: float,
) -> MixedPrecision:
    """The fewest of the dearest layers whose staying in 16 bit meets the budget.

    Bisects over how many, dearest first, and so assumes that keeping more does not cost more.

    Args:
        costs: what `sensitivity` gives.
        correct: gives a quantization the biases that go with its kept layers, see
            `calibrate.correct`.
        measure: the loss of a quantized network, in the budget's unit: top-1 points lost on a
            labelled set, or KL.
    """

    def attempt(count: int) -> MixedPrecision:
        kept = tuple(sorted({*quantization.kept, *(cost.name for cost in costs[:count])}))
        candidate = quantization if count == 0 else correct(replace(quantization, kept=kept))
        cost = measure(candidate)
        return MixedPrecision(candidate, cost, cost <= budget)

    fewest = attempt(0)
    if fewest.within_budget:
        return fewest
    best = attempt(len(costs))
    low, high = 0, len(costs)
    while best.within_budget and high - low > 1:
        middle = (low + high) // 2
        tried = attempt(middle)
        if tried.within_budget:
            best, high = tried, middle
        else:
            low = middle
    return best


class _Alternatives:
    """One batch through the exact network, and from each layer on with that layer rounded."""

    def __init__(self, exact: EfficientNet, rounded: EfficientNet, names: Sequence[str]) -> None:
        self._exact = exact
        self._rounded = rounded
        self._names = set(names)
        self.logits: dict[str, Tensor] = {}

    def pass_through(self, batch: Tensor) -> None:
        """Fill `logits`, and `exact_logits`."""
        steps: list[tuple[str, nn.Module]] = [*blocks(self._exact)]
        x = self._exact.stem(batch)
        for index, (name, block) in enumerate(steps):
            rest = [module for _, module in steps[index + 1 :]]
            for layer_name in self._inside(name):
                with _swapped(self._exact, self._rounded, layer_name):
                    y = block(x)
                self.logits[layer_name] = self._finish(y, rest)
            x = block(x)
        for layer_name in sorted(self._names & {"head.conv", CLASSIFIER}):
            with _swapped(self._exact, self._rounded, layer_name):
                self.logits[layer_name] = self._finish(x, [])
        self.exact_logits = self._finish(x, [])

    def _inside(self, block_name: str) -> list[str]:
        return sorted(name for name in self._names if name.startswith(f"{block_name}."))

    def _finish(self, x: Tensor, modules: list[nn.Module]) -> Tensor:
        for module in modules:
            x = module(x)
        logits: Tensor = self._exact.classifier(self._exact.pool(self._exact.head(x)))
        return logits


class _swapped:  # noqa: N801 - reads as a statement
    """One layer of a network taken from another for a while."""

    def __init__(self, network: EfficientNet, other: EfficientNet, name: str) -> None:
        parent, _, self._child = name.rpartition(".")
        self._parent = network.get_submodule(parent)
        self._theirs = other.get_submodule(name)
        self._own = cast("nn.Module", getattr(self._parent, self._child))

    def __enter__(self) -> None:
        setattr(self._parent, self._child, self._theirs)

    def __exit__(self, *_: object) -> None:
        setattr(self._parent, self._child, self._own)
