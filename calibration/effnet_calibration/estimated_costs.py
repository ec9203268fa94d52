"""What each layer's quantization costs, estimated for all layers at once.

`sensitivity` measures it, passing every layer's error through all that is behind it: its time grows
with the square of the depth. To second order the KL divergence of an error δ of the logits is
δᵀFδ / 2, F being the Fisher information of the answer. Directions v for which the sum of v vᵀ is F
on average make that half the sum of (vᵀδ)², and to first order vᵀδ is the layer's error times the
gradient of vᵀz with respect to its output (Hutchinson 1990, "A stochastic estimator of the trace of
the influence matrix"). A few backward passes give it of every layer.

The same products tell what errors of several layers do together, but on so few pictures that a
choice by it fits their noise: it is worse on others than the order of the single costs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from effnet_calibration.outputs import channel_sum, positions
from effnet_calibration.path import IN_PLACE, NetworkPath, channels_last
from effnet_calibration.quantized import changed, simulate
from effnet_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from effnet_calibration.path import Layer
    from effnet_calibration.quantization import Quantization
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.outputs import OutputKind
    from effnet_edge.progress import Progress

DIRECTIONS = 3
# Of a block, gradients need all tensors at once.
PICTURES_AT_ONCE = 2
_TINY = 1e-30


def estimate_costs(
    network: EfficientNet,
    quantization: Quantization,
    batches: Sequence[Tensor],
    progress: Progress = no_progress,
) -> dict[str, float]:
    """The cost of every layer that is not kept, by name: 0 or more, up to a factor that all share.

    Args:
        network: the folded network that the quantization was made for.
        batches: normalized pictures, float32 (N, 3, H, W); 32 in all are enough.
        progress: told after each batch.
    """
    bare = quantization.uncorrected()
    exact = _differentiable(changed(network, bare))
    rounded = simulate(network, bare)
    path = NetworkPath.of(exact)
    layers = [layer for layer in path if layer.name not in quantization.kept]
    passes = _Passes(exact, rounded, path, layers)
    for done, batch in enumerate(batches):
        for part in torch.split(batch, PICTURES_AT_ONCE):
            passes.there_and_back(part.contiguous(memory_format=torch.channels_last))
        progress("cost of each tensor", done + 1, len(batches))
    return {name: each.cost() for name, each in passes.products.items()}


def _differentiable(network: EfficientNet) -> EfficientNet:
    network = channels_last(network)
    for module in network.modules():
        if isinstance(module, IN_PLACE):
            module.inplace = False
    return network.requires_grad_(False)


@dataclass
class _Products:
    """Of one layer: gradients times errors, of every picture and direction."""

    with_error: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    error_sum: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    positions: int = 0

    def saw(self, error: Tensor) -> None:
        """Count an error, (N, C, …), to the mean of each channel."""
        self.error_sum = self.error_sum + channel_sum(error)
        self.positions += positions(error)

    def add(self, gradient: Tensor, error: Tensor) -> None:
        """One direction's gradient, (N, C, …)."""
        inside = tuple(range(2, gradient.dim()))
        self.with_error.append((gradient * error).sum((1, *inside)).double())
        self.gradients.append((gradient.sum(inside) if inside else gradient).double())

    def cost(self) -> float:
        """Half the sum of their squares, without the mean errors, for which biases make up."""
        means = torch.cat(self.gradients) @ (self.error_sum / self.positions)
        return float((torch.cat(self.with_error) - means).square().sum() / 2)


class _Passes:
    """Batches forth through the exact network, and gradients back through it part by part."""

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
        self._random = torch.Generator().manual_seed(0)
        self.products = {layer.name: _Products() for layer in layers}

    def there_and_back(self, batch: Tensor) -> None:
        """Add one batch's products."""
        held = [batch]
        with torch.no_grad():
            for part in self._layers:
                held.append(self._exact.get_submodule(part)(held[-1]))
        outputs, kind = held.pop(), self._exact.output_kind
        gradients = _directions(outputs, kind, self._random)
        for part, x in zip(reversed(self._layers), reversed(held), strict=True):
            gradients = self._back(part, x, gradients)

    def _back(self, part: str, x: Tensor, gradients: list[Tensor]) -> list[Tensor]:
        """From those with respect to a part's output to those with respect to its input."""
        x = x.detach().requires_grad_()
        watched = _Watched(self._exact, self._rounded, self._layers[part])
        with watched, torch.enable_grad():
            y = self._exact.get_submodule(part)(x)
        for name, error in watched.errors.items():
            self.products[name].saw(error)
        before = []
        for number, gradient in enumerate(gradients, 1):
            first, *inside = torch.autograd.grad(
                y, [x, *watched.outputs.values()], gradient, retain_graph=number < len(gradients)
            )
            before.append(first)
            for (name, error), each in zip(watched.errors.items(), inside, strict=True):
                self.products[name].add(each, error)
        return before


class _Watched:
    """Layers whose outputs, and what rounding does to them, are kept while a part runs."""

    def __init__(self, exact: EfficientNet, rounded: EfficientNet, layers: Sequence[Layer]) -> None:
        self.outputs: dict[str, Tensor] = {}
        self.errors: dict[str, Tensor] = {}
        self._modules = {
            layer.name: (layer.module(exact), layer.module(rounded)) for layer in layers
        }

    def __enter__(self) -> None:
        self._handles = list(self._hooks())

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hooks(self) -> Iterator[torch.utils.hooks.RemovableHandle]:
        for name, (module, rounded) in self._modules.items():
            yield module.register_forward_hook(self._keep(name, rounded))

    def _keep(self, name: str, rounded: nn.Module) -> Callable[..., None]:
        def keep(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            with torch.no_grad():
                self.errors[name] = rounded(*inputs) - output
            self.outputs[name] = output

        return keep


def _directions(outputs: Tensor, kind: OutputKind, random: torch.Generator) -> list[Tensor]:
    """Directions v of every picture, each (N, classes), the sum of whose v vᵀ weighs errors.

    Of one class out of many, the most likely ones are split off the others one by one, which leaves
    little to chance.
    """
    signs = torch.randint(0, 2, (DIRECTIONS, *outputs.shape), generator=random).float() * 2 - 1
    if kind == "single-label":
        return softmax_directions(outputs.softmax(1), signs[-1])
    weights = torch.ones_like(outputs)
    if kind == "multi-label":
        probabilities = outputs.sigmoid()
        weights = (probabilities * (1 - probabilities)).sqrt()
    return list(signs * weights / DIRECTIONS**0.5)


def softmax_directions(probabilities: Tensor, signs: Tensor) -> list[Tensor]:
    """Directions of a softmax: one for each class that is split off, a random one for the rest."""
    found, rest = [], probabilities.clone()
    for _ in range(min(DIRECTIONS, rest.shape[1]) - 1):
        mass = rest.sum(1, keepdim=True)
        share, best = rest.max(1, keepdim=True)
        rest = rest.scatter(1, best, 0.0)
        direction = torch.zeros_like(rest).scatter(1, best, 1.0) - _normalized(rest)
        found.append((share * rest.sum(1, keepdim=True) / mass.clamp_min(_TINY)).sqrt() * direction)
    weighed = signs * rest.sqrt()
    return [*found, weighed - _normalized(rest) * weighed.sum(1, keepdim=True)]


def _normalized(masses: Tensor) -> Tensor:
    return masses / masses.sum(1, keepdim=True).clamp_min(_TINY)
