"""What a network gives before it is quantized."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from effnet_calibration.path import CLASSIFIER, NetworkPath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from effnet_edge.model.network import EfficientNet


@dataclass(frozen=True)
class ExactOutputs:
    """What a network gives before it is quantized, and the pictures it was given.

    Attributes:
        batches: normalized pictures, float32 (n, 3, H, W) each.
        means: of the output channels of every layer on the main path, by layer name, float64 (C,).
        logits: float32 (N, classes); (0, 0) for a network without a classifier.
        activation_means: of what the ReLUs behind those layers give, by layer name. A SiLU gives
            too much that is not above 0 for its mean to tell more.
    """

    batches: tuple[Tensor, ...]
    means: dict[str, Tensor]
    logits: Tensor
    activation_means: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, network: EfficientNet, batches: Iterable[Tensor]) -> ExactOutputs:
        """Pass the pictures through the network."""
        with OutputCollector(network) as collector, torch.inference_mode():
            for batch in batches:
                collector.offer(batch)
                network(batch.contiguous(memory_format=torch.channels_last))
        return collector.outputs()


class OutputCollector:
    """Watches a network's outputs while the pictures pass; a context manager for its hooks.

    Args:
        limit: pictures to watch at most, in whole batches, but the first batch in any case.
    """

    def __init__(self, network: EfficientNet, limit: int | None = None) -> None:
        self._network = network
        self._limit = limit
        self._watching = False
        self._images = 0
        self._batches: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._totals: dict[str, Tensor] = {}
        self._activation_totals: dict[str, Tensor] = {}
        self._positions: dict[str, int] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> OutputCollector:
        for layer in NetworkPath.of(self._network).main:
            module = layer.module(self._network)
            self._handles.append(module.register_forward_hook(self._hook(layer.name)))
            if layer.activation is not None and self._network.activation != "silu":
                behind = self._network.get_submodule(layer.activation)
                hook = self._hook_behind(layer.name)
                self._handles.append(behind.register_forward_hook(hook))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def offer(self, batch: Tensor) -> None:
        """Watch this batch, float32 (n, 3, H, W), if there is room; the network gets it next."""
        full = self._limit is not None and self._images + len(batch) > self._limit
        self._watching = not (full and self._batches)
        if self._watching:
            self._batches.append(batch)
            self._images += len(batch)

    def outputs(self) -> ExactOutputs:
        """What was seen."""
        logits = torch.cat(self._logits) if self._logits else torch.empty(0, 0)
        means = {name: total / self._positions[name] for name, total in self._totals.items()}
        behind = {
            name: total / self._positions[name] for name, total in self._activation_totals.items()
        }
        return ExactOutputs(tuple(self._batches), means, logits, behind)

    def _hook_behind(self, name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def add(_: nn.Module, __: tuple[Tensor], output: Tensor) -> None:
            if self._watching:
                total = self._activation_totals.get(name, 0)
                self._activation_totals[name] = total + channel_sum(output)

        return add

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def add(_: nn.Module, __: tuple[Tensor], output: Tensor) -> None:
            if not self._watching:
                return
            self._totals[name] = self._totals.get(name, 0) + channel_sum(output)
            self._positions[name] = self._positions.get(name, 0) + positions(output)
            if name == CLASSIFIER:
                self._logits.append(output)

        return add


def channel_sum(values: Tensor) -> Tensor:
    """The sum over all but the channels: float32 (N, C) or (N, C, H, W) → float64 (C,)."""
    if values.dim() == 2:
        return values.double().sum(0)
    return values.sum((2, 3)).double().sum(0)


def positions(values: Tensor) -> int:
    """How many values a channel has."""
    return values.numel() // values.shape[1]
