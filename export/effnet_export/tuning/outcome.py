"""What came of the candidates, and which of them is the one that was asked for."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from effnet_edge import nonfinite
from effnet_edge.choosing.frontier import fastest, frontier
from effnet_edge.parity.report.loss import telling_measures
from effnet_export.tuning.candidates import DEFAULT
from effnet_export.tuning.existing import AS_IT_IS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effnet_edge.bundle import Bundle
    from effnet_edge.choosing.frontier import Measured
    from effnet_edge.parity import ParityResult
    from effnet_edge.parity.measures.table import Measure
    from effnet_export.tuning.limits import Limits

_BASELINE = "fp32"


@dataclass(frozen=True)
class Beside:
    """Other times of a candidate, by which none is chosen.

    Attributes:
        images_per_second: loaded for throughput; None where the target has no such mode.
        seconds_per_image: in the median, in a call of so many images as the batch takes at least
            and at most; empty where it takes one number alone.
    """

    images_per_second: float | None = None
    seconds_per_image: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Tried:
    """What came of one candidate.

    Attributes:
        made_of: what the bundle holds; where there is none, what it was to hold.
        bytes: of the bundle's files; like what follows None where there is none.
        problem: why there is none.
        refused: whether a gate refused it.
        beside: what else was timed.
    """

    name: str
    made_of: str
    bytes: int | None = None
    loss: ParityResult | None = None
    measured: Measured | None = None
    problem: str | None = None
    refused: bool = False
    beside: Beside | None = None

    @property
    def has_loss(self) -> bool:
        """Whether what it loses was measured, and is a number."""
        return self.measured is not None and math.isfinite(self.measured.loss)

    def failures(self, limits: Limits) -> list[str]:
        """A line for each limit that it does not keep, or why it was not measured."""
        if self.loss is None or self.measured is None:
            return [self.problem or "not measured"]
        return limits.failures(self.loss, self.measured.median)


@dataclass(frozen=True)
class Tuned:
    """What came of all candidates, of which one at least was measured.

    Attributes:
        chosen: the one asked for; None where there is none.
        bundle: `chosen` in its place.
        judged_on: which pictures, in words.
        seconds: that all of it took.
    """

    tried: list[Tried]
    limits: Limits
    chosen: Tried | None
    bundle: Bundle | None
    judged_on: str
    seconds: float

    @cached_property
    def measured(self) -> list[tuple[Tried, ParityResult, Measured]]:
        """Those that were measured, with what was."""
        return [
            (each, each.loss, each.measured)
            for each in self.tried
            if each.loss is not None and each.measured is not None
        ]

    @cached_property
    def frontier(self) -> list[str]:
        """The names of those on the frontier, the fastest first."""
        return [each.name for each in frontier([measured for *_, measured in self.measured])]

    @cached_property
    def baseline(self) -> Measured:
        """Whose time the others are told against: FP32, or the slowest where it is missing."""
        measured = {each.name: each for *_, each in self.measured}
        return measured.get(_BASELINE) or max(measured.values(), key=lambda each: each.median)

    @cached_property
    def as_it_is(self) -> Measured | None:
        """The bundle that was tuned, if it was measured: times are told against it, too."""
        return next((each for *_, each in self.measured if each.name == AS_IT_IS), None)

    @property
    def measures(self) -> list[Measure]:
        """Those that tell the losses in a table."""
        return measured_ones(self.measured[0][1])

    def ratio(self, measured: Measured, to: Measured | None = None) -> float:
        """Its time over the baseline's, or another one's."""
        return measured.median / (to or self.baseline).median

    @cached_property
    def beside(self) -> list[str]:
        """The headings of what else was timed."""
        first = next((each.beside for each in self.tried if each.beside), Beside())
        load = [] if first.images_per_second is None else ["pictures/s"]
        return [*load, *(f"ms each, {size} a call" for size in first.seconds_per_image)]

    def told_beside(self, tried: Tried) -> list[str]:
        """The same of one candidate, in words."""
        beside = tried.beside or Beside()
        load = beside.images_per_second
        ends = (f"{1e3 * each:.2f}" for each in beside.seconds_per_image.values())
        return [*([] if load is None else [nonfinite.tell(load)]), *ends]

    def place(self, tried: Tried) -> str:
        """In words, what it is among all of them."""
        if tried.problem is not None:
            return "refused by a gate" if tried.refused else "failed"
        if not tried.has_loss:
            loss = None if tried.measured is None else tried.measured.loss
            return f"no number: its loss is {nonfinite.tell(loss)}"
        if tried is self.chosen:
            return "chosen"
        where = "frontier" if tried.name in self.frontier else "beaten"
        return f"{where}, over a limit" if tried.failures(self.limits) else where

    @cached_property
    def why_none(self) -> str:
        """In one line, why no candidate was chosen, and what comes nearest."""
        if not self.limits.any:
            default = next(each for each in self.tried if each.name == DEFAULT)
            return (
                f"{DEFAULT}, which is written where no limit is set, could not be made: "
                f"{default.problem or self.place(default)}: set one (--max-kl, --max-latency), and "
                "the fastest within is written"
            )
        nearest, loss, _ = min(
            self.measured,
            key=lambda each: (self.limits.excess(each[1], each[2].median), each[2].median),
        )
        return self.limits.told_missed(loss, nearest.name, nearest.failures(self.limits))

    def to_dict(self) -> dict[str, Any]:
        """JSON values; numbers as `effnet_edge.nonfinite` says, times in seconds."""
        return {
            "bundle": self.bundle and str(self.bundle.path),
            "chosen": self.chosen and self.chosen.name,
            "limits": {**self.limits.loss.limits, "seconds": self.limits.seconds},
            "judged_on": self.judged_on,
            "baseline": self.baseline.name,
            "frontier": self.frontier,
            "candidates": [self._row(each) for each in self.tried],
            "seconds": round(self.seconds, 3),
        }

    def _row(self, tried: Tried) -> dict[str, object]:
        measured = tried.measured
        return {
            "name": tried.name,
            "made_of": tried.made_of,
            "bytes": tried.bytes,
            "problem": tried.problem,
            "refused_by_gate": tried.refused,
            "breaks": tried.failures(self.limits),
            "loss": tried.loss and tried.loss.to_dict(),
            "beside": tried.beside and asdict(tried.beside),
            "latency": measured
            and {
                "rounds": len(measured.seconds),
                "least": measured.least,
                "median": measured.median,
                "middle_half": measured.middle_half,
                "ratio": self.ratio(measured),
                "ratio_to_bundle": self.as_it_is and self.ratio(measured, self.as_it_is),
            },
        }


def measured_ones(loss: ParityResult) -> list[Measure]:
    """Those of `telling_measures` that were measured."""
    return [each for each in telling_measures(loss.output) if loss.value(each.key) is not None]


def choose(tried: Sequence[Tried], limits: Limits) -> Tried | None:
    """The fastest of those that keep the limits; without limits `DEFAULT`. None where it fails.

    Never one whose loss is no number.
    """
    if not limits.any:
        return next((each for each in tried if each.name == DEFAULT and each.has_loss), None)
    within = [each for each in tried if not each.failures(limits)]
    found = fastest([each.measured for each in within if each.measured])
    return next((each for each in within if each.measured is found), None) if found else None
