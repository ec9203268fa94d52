"""The layers of an engine by the part of the network that they belong to."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from effnet_edge.runtime.layer_times import LayerTime

_NUMBERED = re.compile(r"^(?:[^./]*\.)?(?:\d+\.)+")


@dataclass(frozen=True)
class PartTime:
    """All layers of one part, in whatever stage or block, that the same kernel computes.

    Attributes:
        part: "stem.conv", "depthwise.conv", "se.reduce", …: their names without the blocks'.
        layers: how many they are.
        seconds: of all of them in one call.
        share: of the seconds of all layers, 0..1.
    """

    part: str
    operator: str
    kernel: str
    layers: int
    seconds: float
    share: float


def by_part(layers: Iterable[LayerTime]) -> list[PartTime]:
    """Add up layers, the part that takes longest first; what takes no time at all is left out."""
    seconds: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    for layer in layers:
        if layer.seconds > 0:
            seconds[part_of(layer.name), layer.operator, layer.kernel].append(layer.seconds)
    total = sum(map(sum, seconds.values()))
    parts = [
        PartTime(*key, layers=len(taken), seconds=sum(taken), share=sum(taken) / total)
        for key, taken in seconds.items()
    ]
    return sorted(parts, key=lambda part: -part.seconds)


def part_of(name: str) -> str:
    """The part that a node's name tells: "stages.3.0.se.reduce/WithoutBiases" → "se.reduce"."""
    return _NUMBERED.sub("", name.lstrip("/")).partition("/")[0]
