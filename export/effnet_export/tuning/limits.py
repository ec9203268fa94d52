"""What a person allows: a loss, a time, and how far a candidate is from both."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError
from effnet_edge.parity import Gate
from effnet_edge.parity.measures.table import limited_measure
from effnet_edge.parity.report.loss import divergence_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effnet_edge.parity import ParityResult

_SMALL = 1e-9


@dataclass(frozen=True)
class Limits:
    """Limits on the loss, and on the seconds of a call; without any, everything keeps them.

    Raises:
        UsageError: a time that is not above 0.
    """

    loss: Gate = field(default_factory=Gate)
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise UsageError(f"--max-latency {1e3 * self.seconds:g}: give milliseconds above 0")

    @classmethod
    def of(
        cls,
        max_kl: float | None = None,
        max_drop: float | None = None,
        max_nrmse: float | None = None,
        max_latency: float | None = None,
    ) -> Limits:
        """Limits as a person gives them, the latency in milliseconds."""
        seconds = None if max_latency is None else max_latency / 1e3
        return cls(Gate(max_kl=max_kl, max_drop=max_drop, max_nrmse=max_nrmse), seconds)

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return bool(self.loss.limits) or self.seconds is not None

    def or_within(self, own: ParityResult | None) -> Limits:
        """These; where there is none, to lose no more than that, if it was measured."""
        if self.any or own is None:
            return self
        name = divergence_kind(own.output).limit
        measure = limited_measure(name, own.output)
        value = None if measure is None else own.value(measure.key)
        finite = value is not None and math.isfinite(value)
        return replace(self, loss=Gate(**{name: value})) if finite else self

    def loss_failures(self, loss: ParityResult) -> list[str]:
        """A line for each limit on the loss that is not kept; NaN keeps none."""
        return self.loss.check(loss)

    def failures(self, loss: ParityResult, seconds: float) -> list[str]:
        """The same with the limit on the time."""
        lines = self.loss_failures(loss)
        if self.seconds is not None and not seconds <= self.seconds:
            lines.append(f"{1e3 * seconds:.3g} ms are above the {1e3 * self.seconds:g} ms allowed")
        return lines

    def excess(self, loss: ParityResult, seconds: float) -> float:
        """How far beyond the limits it is at most, as a share of the limit; infinite for NaN."""
        verdict = self.loss.judge(loss)
        pairs = [(check.value, check.limit) for check in verdict.checks]
        if self.seconds is not None:
            pairs.append((seconds, self.seconds))
        shares = [_beyond(value, limit) for value, limit in pairs]
        return math.inf if verdict.faults else max(shares, default=0.0)

    def describe(self, loss: ParityResult) -> str:
        """The limits in words."""
        told = [self.loss.describe(loss.output)] if self.loss.limits else []
        if self.seconds is not None:
            told.append(f"{1e3 * self.seconds:g} ms a call")
        return " and ".join(told)

    def told_missed(self, loss: ParityResult, nearest: str, failures: Sequence[str]) -> str:
        """In one line, that no candidate keeps them, and what comes nearest."""
        return (
            f"no candidate keeps {self.describe(loss)}: of the nearest, {nearest}, "
            f"{'; '.join(failures)}: allow more"
        )


def _beyond(value: float | None, limit: float) -> float:
    if value is None or math.isnan(value):
        return math.inf
    return (value - limit) / max(abs(limit), _SMALL)
