"""How long each layer of a running engine takes, as the engine's own clock tells it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from effnet_edge.arguments import whole_number
from effnet_edge.errors import UsageError
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from effnet_edge.bundle import Manifest


@dataclass(frozen=True)
class LayerTime:
    """One node of the graph as it is executed, with all that the engine has fused into it.

    Attributes:
        name: of the node.
        operator: what it does, as the engine calls it: "Convolution", "Conv", ….
        kernel: what does it, where the engine tells: "jit_avx2_I8", ….
        seconds: the median of the runs.
    """

    name: str
    operator: str
    kernel: str
    seconds: float


@runtime_checkable
class LayerClock(Protocol):
    """A backend whose library times its nodes."""

    def layer_times(self, batch: Any, runs: int) -> list[LayerTime]:
        """Time every node on that batch, in the order of execution.

        The engine is opened once more for it, as its clock slows it down.
        """


def asked_clock(
    backend: object, manifest: Manifest, size: int, runs: int
) -> tuple[LayerClock, int, int]:
    """The backend that is to time its nodes, on how many images and how often.

    Raises:
        UsageError: its library tells no times, it takes fewer or more images at once, or there are
            no runs.
    """
    if not isinstance(backend, LayerClock):
        raise UsageError(f"{TARGETS[manifest.target].title} tells no times of layers")
    images = whole_number("size", size, manifest.batch.minimum, manifest.batch.maximum)
    return backend, images, whole_number("runs", runs, 1)


def medians(runs: Iterable[Sequence[LayerTime]]) -> list[LayerTime]:
    """Of the same nodes in every run, the median seconds of each, in the order of the first run."""
    seconds: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    for run in runs:
        for each in run:
            seconds[each.name, each.operator, each.kernel].append(each.seconds)
    return [LayerTime(*node, statistics.median(taken)) for node, taken in seconds.items()]
