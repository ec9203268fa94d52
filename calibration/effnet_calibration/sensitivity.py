"""What each layer's quantization costs: its input and weights rounded, all others exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from effnet_calibration.path import NetworkPath, channels_last
from effnet_calibration.quantized import changed, simulate
from effnet_edge.parity.measures.output_measures import OUTPUT_MEASURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effnet_calibration.path import Layer
    from effnet_calibration.quantization import Quantization
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.progress import Progress


@dataclass(frozen=True)
class LayerCost:
    """What quantizing one layer's input and weights, and nothing else, costs.

    Attributes:
        name, kind: the layer's; of the stem only the weights are quantized.
        depth: the layer's place in the order of execution.
        divergence: of the answers from the exact network's, by the measure of `OUTPUT_MEASURES`:
            KL of the probabilities, nats, or the error of features or values as a share of their
            energy or variance. The layer's bias makes up for its mean error, as it does in the
            finished model.
        snr_db: the signal to noise that calibration promised, decibels; None for the stem.
        rule: how its range was chosen; None for the stem.
    """

    name: str
    kind: str
    depth: int
    divergence: float
    snr_db: float | None = None
    rule: str | None = None


def sensitivity(
    network: EfficientNet,
    quantization: Quantization,
    batches: Sequence[Tensor],
    progress: Progress | None = None,
) -> list[LayerCost]:
    """Measure the cost of every quantized layer, the highest first.

    Args:
        network: the folded network that the quantization was made for.
        batches: normalized pictures, float32 (N, 3, H, W); 32 to 64 in all are enough.
        progress: told after each batch.
    """
    # Corrected biases are for a network that is quantized before the layer too.
    bare = quantization.uncorrected()
    # The quantized network before rounding will not do: its biases are for rounded weights.
    exact = channels_last(changed(network, bare))
    rounded = simulate(network, bare)
    path = NetworkPath.of(exact)
    layers = [layer for layer in path if layer.name not in quantization.kept]
    batches = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]
    exact_logits: list[Tensor] = []
    logits: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    with torch.inference_mode():
        corrected = [layer for layer in layers if not layer.in_gate]
        _remove_mean_errors(exact, rounded, corrected, batches)
        for done, batch in enumerate(batches):
            run = _Alternatives(exact, rounded, path, layers)
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
    costs = _costs(path, quantization, divergences)
    return sorted(costs, key=lambda cost: cost.divergence, reverse=True)


def _costs(
    path: NetworkPath, quantization: Quantization, divergences: dict[str, float]
) -> list[LayerCost]:
    costs = []
    for depth, layer in enumerate(path):
        if layer.name not in divergences:
            continue
        grid = quantization.layer(layer.name).grid
        costs.append(
            LayerCost(
                layer.name,
                layer.kind,
                depth,
                divergences[layer.name],
                grid.snr_db if grid else None,
                grid.rule if grid else None,
            )
        )
    return costs


def _remove_mean_errors(
    exact: EfficientNet, rounded: EfficientNet, layers: Sequence[Layer], batches: Sequence[Tensor]
) -> None:
    """Take from the bias of every rounded layer its output's mean error on exact inputs."""
    errors: dict[Layer, Tensor] = {}

    def watch(layer: Layer) -> torch.utils.hooks.RemovableHandle:
        def add(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            error = layer.module(rounded)(*inputs) - output
            total = error.flatten(2).mean(2).sum(0) if error.dim() == 4 else error.sum(0)
            errors[layer] = errors.get(layer, torch.zeros_like(total)) + total

        return layer.module(exact).register_forward_hook(add)

    handles = [watch(layer) for layer in layers]
    for batch in batches:
        exact(batch)
    for handle in handles:
        handle.remove()
    images = sum(len(batch) for batch in batches)
    for layer, error in errors.items():
        module = layer.module(rounded)
        bias = cast("Tensor", module.bias) - error / images
        module.bias = nn.Parameter(bias, requires_grad=False)


class _Alternatives:
    """One batch through the exact network, and from each layer on with that layer rounded."""

    def __init__(
        self,
        exact: EfficientNet,
        rounded: EfficientNet,
        path: NetworkPath,
        layers: Sequence[Layer],
    ) -> None:
        self._exact = exact
        self._rounded = rounded
        self._layers = path.by_part(layers)
        self._parts = list(self._layers)
        self.logits: dict[str, Tensor] = {}

    def pass_through(self, batch: Tensor) -> None:
        """Fill `logits`, and `exact_logits`."""
        x = batch
        for index, part in enumerate(self._parts):
            for layer in self._layers[part]:
                with _swapped(self._exact, self._rounded, layer.name):
                    self.logits[layer.name] = self._from(index, x)
            x = self._exact.get_submodule(part)(x)
        self.exact_logits = x

    def _from(self, index: int, x: Tensor) -> Tensor:
        for part in self._parts[index:]:
            x = self._exact.get_submodule(part)(x)
        return x


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
