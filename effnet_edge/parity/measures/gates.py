"""What a candidate must hold to count as the same model as its reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError
from effnet_edge.outputs import OUTPUT_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.comparison import ParityResult


@dataclass(frozen=True)
class Gate:
    """Limits on a parity result; a limit that is None does not count.

    Whatever the limits, a NaN or infinite logit on either side fails, and so does a measure that
    is NaN. A value that sits on its limit passes. Raises UsageError for a limit out of its range.
    """

    max_relative_error: float | None = None
    """Worst error as a share of the reference's range of outputs, 0 or more."""
    min_agreement: float | None = None
    """Top-1 agreement, of independent labels that of the whole set, as a share, 0..1 (the command
    line takes percent)."""
    min_sqnr_db: float | None = None
    """Decibels."""
    max_kl: float | None = None
    """Mean KL divergence in nats, of independent labels the mean over these, 0 or more."""
    max_drop: float | None = None
    """Top-1 drop in percentage points, 0 or more: holds the point estimate; needs labels."""

    def __post_init__(self) -> None:
        for rule, limit in self._limits():
            if not rule.lowest <= limit <= rule.highest:
                raise UsageError(
                    f"{rule.field} must be between {rule.lowest:g} and {rule.highest:g}, "
                    f"not {limit:g}"
                )

    def check(self, result: ParityResult) -> list[str]:
        """One line for each limit that `result` breaks; empty where it passes.

        Raises UsageError where a limit is set on what the comparison does not have: accuracy
        without labels, agreement or KL of features.
        """
        broken = [
            rule.failure(value, limit, result.output)
            for rule, limit in self._limits()
            if not rule.passes(value := rule.measured(result), limit)
        ]
        return [*_nonfinite(result), *broken]

    def describe(self, output: OutputKind = "single-label") -> str:
        """The limits in one short line, for a report or a progress line."""
        told = [
            f"{rule.name(output)} {'≥' if rule.at_least else '≤'} {rule.shown * limit:g}{rule.unit}"
            for rule, limit in self._limits()
        ]
        return ", ".join(told) or "finite logits"

    def _limits(self) -> list[tuple[_Rule, float]]:
        return [
            (rule, limit) for rule in _RULES if (limit := getattr(self, rule.field)) is not None
        ]


@dataclass(frozen=True)
class _Rule:
    """How one field of a gate is checked and told."""

    field: str
    measure: str
    measured: Callable[[ParityResult], float]
    at_least: bool = False
    lowest: float = 0.0
    highest: float = math.inf
    unit: str = ""
    shown: float = 1.0
    """Factor from the stored value to the one a person is shown."""
    style: str = "g"
    multi_label_measure: str | None = None

    def name(self, output: OutputKind) -> str:
        """What the measure is called for this kind of output."""
        named = self.multi_label_measure if output == "multi-label" else None
        return named or self.measure

    def passes(self, value: float, limit: float) -> bool:
        # A NaN compares as false, hence fails.
        return value >= limit if self.at_least else value <= limit

    def failure(self, value: float, limit: float, output: OutputKind) -> str:
        measure = self.name(output)
        verdict, wish = ("below", "asked for") if self.at_least else ("above", "allowed")
        if math.isnan(value):
            return f"{measure} is not a number ({self.shown * limit:g}{self.unit} {wish})"
        was, wanted = _tell_apart(self.shown * value, self.shown * limit, self.style)
        return f"{measure} {was}{self.unit} is {verdict} the {wanted}{self.unit} {wish}"


def _tell_apart(value: float, limit: float, style: str) -> tuple[str, str]:
    """Both as text, with as many digits beyond two as it takes to see which is larger."""
    was = wanted = ""
    for digits in range(2, 18):
        was, wanted = f"{value:.{digits}{style}}", f"{limit:.{digits}{style}}"
        if was != wanted:
            break
    return was, wanted


def _agreement(result: ParityResult) -> float:
    return _known(result.agreement, "agreement")


def _kl(result: ParityResult) -> float:
    return _known(result.kl, "the KL divergence")


def _known(value: float | None, measure: str) -> float:
    if value is None:
        raise UsageError(
            f"a limit on {measure} needs classes, and features have none: limit the SQNR instead"
        )
    return value


def _top1_drop(result: ParityResult) -> float:
    if result.accuracy is None:
        raise UsageError(
            f"a limit on the accuracy drop needs labels, and {result.image_source or 'the images'} "
            "have none: give labelled images or leave the limit out"
        )
    return result.accuracy.top1.points


_RULES = (
    _Rule("max_relative_error", "relative error", lambda result: result.relative_error),
    _Rule(
        "min_agreement",
        "top-1 agreement",
        _agreement,
        at_least=True,
        highest=1.0,
        unit=" %",
        shown=100.0,
        style="f",
        multi_label_measure="agreement of the set of labels",
    ),
    _Rule(
        "min_sqnr_db",
        "SQNR",
        lambda result: result.sqnr_db,
        at_least=True,
        lowest=-math.inf,
        unit=" dB",
        style="f",
    ),
    _Rule(
        "max_kl",
        "KL divergence",
        _kl,
        unit=" nats",
        multi_label_measure="KL divergence per label",
    ),
    _Rule("max_drop", "top-1 drop", _top1_drop, unit=" points", style="f"),
)


EXACT = Gate(max_relative_error=1e-3, min_agreement=1.0)
"""For a step that only rewrites the graph: nothing may change but the last bits."""

EXACT_GATES: dict[OutputKind, Gate] = {
    "single-label": EXACT,
    # Not the agreement: of so many decisions one may lie on the threshold to the last bit.
    "multi-label": Gate(max_relative_error=1e-3, max_kl=1e-6),
    "features": Gate(max_relative_error=1e-3, min_sqnr_db=60.0),
}
"""The same for every kind of output."""


def _nonfinite(result: ParityResult) -> list[str]:
    sides = (
        (result.reference, result.reference_nonfinite),
        (result.candidate, result.candidate_nonfinite),
    )
    values = OUTPUT_NAMES[result.output]
    return [
        f"{name} gave NaN or infinite {values} for {images} of {result.images} images"
        for name, images in sides
        if images
    ]
