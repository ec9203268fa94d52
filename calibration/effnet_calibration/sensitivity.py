"""What each tensor's quantization costs: one layer rounded, and all others exact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from effnet_calibration.quantized import apply_quantization, equalized
from effnet_calibration.sites import (
    CLASSIFIER,
    HEAD,
    STEM,
    blocks,
    channels_last,
    layer,
    quantized_layers,
    sites,
    squeeze_excitations,
)
from effnet_edge.parity.measures.output_measures import OUTPUT_MEASURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effnet_calibration.table import Quantization
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.progress import Progress


@dataclass(frozen=True)
class TensorCost:
    """What quantizing one layer's input and weights, and nothing else, costs.

    Attributes:
        name: of the layer that reads the tensor.
        kind: a site's kind, or "stem": of the stem only the weights are quantized.
        depth: the layer's place in the order of execution.
        divergence: of the answers from the exact network's, by the measure of `OUTPUT_MEASURES`:
            KL of the probabilities, nats, or the normalized error of features. The layer's bias
            makes up for its mean error, as it does in the finished model.
        snr_db: the signal to noise that calibration promised, decibels; None for the stem.
        rule: how its range was chosen; None for the stem.
    """

    name: str
    kind: str
    depth: int
    divergence: float
    snr_db: float | None = None
    rule: str | None = None

    @property
    def block(self) -> str:
        """Where it is: "1.0" in stages.1.0, "stem", "head", "classifier"."""
        parts = self.name.removeprefix("stages.").split(".")
        return ".".join(parts[:2]) if self.name.startswith("stages.") else parts[0]

    @property
    def short_name(self) -> str:
        """The name as far as it tells something: "1.0.depthwise"."""
        return self.name.removeprefix("stages.").removesuffix(".conv")


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
    bare = replace(quantization, biases={}, logit_gain=1.0)
    # The quantized network before rounding will not do: its biases are for rounded weights.
    exact = channels_last(equalized(network, bare))
    rounded = apply_quantization(network, bare).simulated()
    names = [name for name in quantized_layers(network) if name not in quantization.kept]
    batches = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]
    exact_logits: list[Tensor] = []
    logits: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.inference_mode():
        corrected = [name for name in names if name not in squeeze_excitations(network)]
        _remove_mean_errors(exact, rounded, corrected, batches)
        for done, batch in enumerate(batches):
            run = _Alternatives(exact, rounded, names)
            run.pass_through(batch)
            exact_logits.append(run.exact_logits)
            for name, alternative in run.logits.items():
                logits[name].append(alternative)
            if progress is not None:
                progress("sensitivity", done + 1, len(batches))
    reference = torch.cat(exact_logits).numpy()
    measure = OUTPUT_MEASURES[network.output_kind].divergence
    divergences = {
        name: measure(reference, torch.cat(each).numpy()) for name, each in logits.items()
    }
    costs = _costs(network, quantization, divergences)
    return sorted(costs, key=lambda cost: cost.divergence, reverse=True)


def _costs(
    network: EfficientNet, quantization: Quantization, divergences: dict[str, float]
) -> list[TensorCost]:
    kinds = {site.name: site.kind for site in sites(network)}
    costs = []
    for depth, name in enumerate(quantized_layers(network)):
        if name not in divergences:
            continue
        entry = quantization.tensors.get(name)
        costs.append(
            TensorCost(
                name,
                kinds.get(name, "stem"),
                depth,
                divergences[name],
                entry.snr_db if entry else None,
                entry.rule if entry else None,
            )
        )
    return costs


def _remove_mean_errors(
    exact: EfficientNet, rounded: EfficientNet, names: Sequence[str], batches: Sequence[Tensor]
) -> None:
    """Take from the bias of every rounded layer its output's mean error on exact inputs."""
    errors: dict[str, Tensor] = {}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def add(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            error = layer(rounded, name)(*inputs) - output
            total = error.flatten(2).mean(2).sum(0) if error.dim() == 4 else error.sum(0)
            errors[name] = errors.get(name, torch.zeros_like(total)) + total

        return layer(exact, name).register_forward_hook(add)

    handles = [watch(name) for name in names]
    for batch in batches:
        exact(batch)
    for handle in handles:
        handle.remove()
    images = sum(len(batch) for batch in batches)
    for name, error in errors.items():
        module = layer(rounded, name)
        bias = cast("Tensor", module.bias) - error / images
        module.bias = nn.Parameter(bias, requires_grad=False)


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
        if STEM in self._names:
            with _swapped(self._exact, self._rounded, STEM):
                y = self._exact.stem(batch)
            self.logits[STEM] = self._finish(y, [module for _, module in steps])
        x = self._exact.stem(batch)
        for index, (name, block) in enumerate(steps):
            rest = [module for _, module in steps[index + 1 :]]
            for layer_name in self._inside(name):
                with _swapped(self._exact, self._rounded, layer_name):
                    y = block(x)
                self.logits[layer_name] = self._finish(y, rest)
            x = block(x)
        for layer_name in sorted(self._names & {HEAD, CLASSIFIER}):
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
