"""Several graphs in one bundle, of which the device that builds their engines keeps one.

Only that device can tell their times. What each loses was measured where they were made.
"""

from __future__ import annotations

from dataclasses import dataclass

from effnet_edge.bundle.proof import Calibration, StageParity  # noqa: TC001 - cattrs resolves it


@dataclass(frozen=True)
class Graph:
    """One of several graphs: `model` is the bundle's file, the rest as of a bundle of one."""

    model: str
    calibration: Calibration | None
    parity: tuple[StageParity, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The bundle's files that belong to it alone."""
        return (self.model, *([self.calibration.table] if self.calibration else ()))


@dataclass(frozen=True)
class Latency:
    """Seconds of a call on the device, in turns with the engines of the other graphs."""

    rounds: int
    least: float
    median: float
    middle_half: tuple[float, float]


@dataclass(frozen=True)
class Contender:
    """A graph that may be kept.

    Attributes:
        made_of: in words.
        loss: against PyTorch on pictures that nothing was calibrated on, with the limits that it
            had to keep.
        graph: None once one of them was chosen; that one is the bundle's own then.
        latency: of its engine; None before, and where it has none.
        problem: why it has none.
    """

    name: str
    made_of: str
    precision: str
    loss: StageParity
    graph: Graph | None
    latency: Latency | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Choice:
    """The graphs that there are or were.

    Attributes:
        contenders: the one that loses least first, which a bundle tells as its own until one is
            chosen.
        chosen: the name of the one that was kept; None until then.
    """

    contenders: tuple[Contender, ...]
    chosen: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether the device has not chosen yet."""
        return self.chosen is None

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """Those that are still there."""
        return tuple(each.graph for each in self.contenders if each.graph is not None)

    @property
    def names(self) -> str:
        """Of all contenders, in words."""
        return ", ".join(each.name for each in self.contenders)

    def problems(self) -> list[str]:
        """What a schema cannot say, a line each; empty where nothing is wrong."""
        names = [each.name for each in self.contenders]
        models = [each.model for each in self.graphs]
        if len(set(names)) < len(names) or len(set(models)) < len(models):
            return ["choice: names a graph twice"]
        if self.is_open:
            return [] if len(models) == len(names) else ["choice: needs a graph of each"]
        if models:
            return ["choice: has graphs besides the one that was chosen"]
        won = next((each for each in self.contenders if each.name == self.chosen), None)
        return [] if won and won.latency else ["choice: the one that was chosen was not timed"]
