"""Pictures on their way through a network, held before one of its layers.

What a layer or an addition gives is rounded where it goes on, as in front of an activation: what
is held behind a layer can still be given another bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch

from effnet_calibration.memory import pictures_at_once
from effnet_calibration.module_rounding import not_rounded, rounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from effnet_calibration.path import Layer
    from effnet_edge.model.network import EfficientNet


class Held(NamedTuple):
    """One batch somewhere in the network, and the shortcut that is still to be added."""

    value: Tensor
    shortcut: Tensor | None

    @property
    def bytes(self) -> int:
        """What both take."""
        return 4 * (self.value.numel() + (0 if self.shortcut is None else self.shortcut.numel()))


def computed(network: EfficientNet, layer: Layer, held: Held) -> Held:
    """The layer's output, not rounded yet, of what is held before it."""
    return Held(not_rounded(layer.module(network), held.value), held.shortcut)


def after(network: EfficientNet, layer: Layer, output: Held) -> Held:
    """What the layer's output is before the next one on the main path."""
    value, shortcut = rounded(layer.module(network), output.value), output.shortcut
    for name in layer.after:
        value = network.get_submodule(name)(value)
    if layer.closes:
        added = value + cast("Tensor", shortcut)
        value, shortcut = rounded(network.get_submodule(layer.block), added), None
    return Held(value, value if layer.opens else shortcut)


def held_pictures(
    network: EfficientNet, batches: Sequence[Tensor], most: int, maps: float
) -> Iterator[Held]:
    """Pictures from all over the set before the first layer, as many as fit at once.

    Args:
        maps: how many of the network's largest maps one picture takes.
    """
    every = sum(len(batch) for batch in batches)
    count = min(most, every, pictures_at_once(network, maps))
    before = 0
    for batch in batches:
        at = torch.arange(before, before + len(batch))
        before += len(batch)
        part = batch[(at + 1) * count // every > at * count // every]
        if len(part):
            yield Held(part.contiguous(memory_format=torch.channels_last), None)
