"""What a candidate must hold to count as the same model as its reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from effnet_edge import nonfinite
from effnet_edge.errors import UsageError
from effnet_edge.outputs import OUTPUT_NAMES
from effnet_edge.parity.measures.statistics import at_least
from effnet_edge.parity.measures.table import LIMITS, LabelledLoss, limited_measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.measures.result import ParityResult
    from effnet_edge.parity.measures.table import Limit, Measure


@dataclass(frozen=True, init=False)
class Gate:
    """Limits on a parity result, by the names of `measures.table`: `Gate(max_kl=0.02)`.

    Whatever the limits, a NaN or infinite logit on either side fails, and so does a measure that
    is NaN or was not measured. A value that sits on its limit passes.

    Attributes:
        limits: by name, in the stored units of the measures: shares, decibels, nats, points.
            Each is an attribute, too, None where it is not set.
    """

    limits: Mapping[str, float]

    def __init__(self, **limits: float | None) -> None:
        """Set limits; one that is None does not count.

        Raises:
            UsageError: a limit out of its range.
            TypeError: there is no such limit.
        """
        unknown = limits.keys() - LIMITS.keys()
        if unknown:
            raise TypeError(f"a gate has no limit {min(unknown)!r}")
        told = {name: value for name in LIMITS if (value := limits.get(name)) is not None}
        for name, value in told.items():
            lowest, highest = LIMITS[name].lowest, LIMITS[name].highest
            if not lowest <= value <= highest:
                raise UsageError(
                    f"{name} must be between {lowest:g} and {highest:g}, not {value:g}"
                )
        object.__setattr__(self, "limits", told)

    def __getattr__(self, name: str) -> float | None:
        if name not in LIMITS:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return self.limits.get(name)

    def but(self, **limits: float | None) -> Gate:
        """The same gate with other values of some limits."""
        return Gate(**{**self.limits, **limits})

    def judge(self, result: ParityResult) -> Verdict:
        """Hold a result against the limits.

        Raises UsageError where a limit is set on what the comparison does not have: accuracy
        without labels, agreement or KL of features.
        """
        return Verdict(
            (*_nonfinite(result), *_constant(result)),
            tuple(_check(LIMITS[name], limit, result) for name, limit in self.limits.items()),
        )

    def check(self, result: ParityResult) -> list[str]:
        """One line for each limit that `result` breaks; empty where it breaks none.

        Raises UsageError as `judge` does.
        """
        return self.judge(result).failures

    def describe(self, output: OutputKind = "single-label") -> str:
        """The limits in one short line, for a report or a progress line."""
        told = [
            f"{measure.title(output)} {LIMITS[name].sign} {measure.tell_limit(limit)}"
            for name, limit in self.limits.items()
            if (measure := limited_measure(name, output))
        ]
        return ", ".join(told) or f"finite {OUTPUT_NAMES[output]}"


@dataclass(frozen=True)
class Verdict:
    """What came of holding a result against a gate.

    Attributes:
        faults: a line for each fault that no limit bounds: NaN or infinite numbers, and batch sizes
            at which the answers are others.
        checks: one for each limit that was set.
    """

    faults: tuple[str, ...]
    checks: tuple[Check, ...]

    def with_faults(self, faults: Sequence[str]) -> Verdict:
        """The same verdict with further lines for what fails."""
        return replace(self, faults=(*self.faults, *faults))

    @property
    def failures(self) -> list[str]:
        """A line for everything that fails."""
        return [*self.faults, *(str(check) for check in self.checks if not check.passed)]

    @property
    def passed(self) -> bool | None:
        """Whether all limits hold; None where there is none to hold."""
        if self.failures:
            return False
        return True if self.checks else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `passed` is null where no limit was set and nothing failed."""
        return {
            "failures": self.failures,
            "passed": self.passed,
            "checks": [check.to_dict() for check in self.checks],
        }


def tell_verdict(passed: bool | None) -> str:
    """Show a person whether a candidate passed; None is one that no limit was set for."""
    return "no limit set" if passed is None else "passed" if passed else "FAILED"


@dataclass(frozen=True)
class Check:
    """One limit, held against one value; both in the stored unit."""

    measure: Measure
    bounds: Limit
    title: str
    value: float | None
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the value keeps to the limit."""
        return self.bounds.holds(self.value, self.limit)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the two numbers, which way they are compared, and the line in words."""
        document: dict[str, Any] = nonfinite.encode(
            {
                "measure": self.measure.key,
                "value": self.value,
                "limit": self.limit,
                "at_least": self.bounds.at_least,
                "passed": self.passed,
                "text": str(self),
            }
        )
        return document

    def __str__(self) -> str:
        wish = "asked for" if self.bounds.at_least else "allowed"
        bound = self.measure.tell_limit(self.limit)
        if self.value is None:
            return f"{self.title} was not measured ({bound} {wish})"
        if math.isnan(self.value):
            return f"{self.title} is NaN, which is not a number ({bound} {wish})"
        was, wanted = self._apart(self.value, self.limit)
        if self.passed:
            return f"{self.title} {was} {self.bounds.sign} {wanted}: passed"
        verdict = "below" if self.bounds.at_least else "above"
        return f"{self.title} {was} is {verdict} the {wanted} {wish}"

    def _apart(self, value: float, limit: float) -> tuple[str, str]:
        """Both as text, with as many digits beyond two as it takes to see which is larger."""
        shown, unit = [self.measure.shown(each) for each in (value, limit)], self.measure.unit
        was = wanted = ""
        for digits in range(2, 18 if value != limit else 3):
            style = f".{digits}{self.measure.style[-1]}"
            was, wanted = (nonfinite.tell(each, style, unit) for each in shown)
            if was != wanted:
                break
        return was, wanted


def _check(limit: Limit, allowed: float, result: ParityResult) -> Check:
    measure = limited_measure(limit.name, result.output)
    if measure is None:
        what = limit.subject.partition(",")[0]
        raise UsageError(
            f"a limit on the {what} needs {limit.needs}, and {_ABSENT[result.output]} have "
            f"none: {_INSTEAD[result.output]}"
        )
    value = result.value(measure.key)
    if value is None and isinstance(measure.formula, LabelledLoss):
        what = "true values" if result.output == "regression" else "labels"
        raise UsageError(
            f"a limit on the {measure.title(result.output)} needs {what}, and "
            f"{result.image_source or 'the pictures'} have none: give labelled pictures, or "
            "leave the limit out"
        )
    title = measure.title(result.output, as_probabilities=result.as_probabilities)
    return Check(measure, limit, title, value, allowed)


_ABSENT: dict[OutputKind, str] = {
    "single-label": "exclusive classes",
    "multi-label": "independent labels",
    "regression": "values",
    "features": "features",
}
_INSTEAD: dict[OutputKind, str] = {
    "single-label": "limit the SQNR instead",
    "multi-label": "limit the SQNR instead",
    "regression": "limit --max-nrmse, --max-error or, with true values, --max-mae-increase",
    "features": "limit the SQNR instead",
}


RARE = 0.01
"""What is less likely than this is no chance."""

EXACT = Gate(max_relative_error=1e-3, min_agreement=1.0)
"""For a step that only rewrites the graph: nothing may change but the last bits."""

EXACT_GATES: dict[OutputKind, Gate] = {
    "single-label": EXACT,
    # Not the agreement: of so many decisions one may lie on the threshold to the last bit.
    "multi-label": Gate(max_relative_error=1e-3, max_kl=1e-6),
    "regression": Gate(max_nrmse=1e-3, min_sqnr_db=60.0),
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
        f"{name} gave NaN or infinite {values} for {images} of {result.images} pictures"
        for name, images in sides
        if images
    ]


def unfit_labels(gate: Gate, result: ParityResult) -> list[str]:
    """A line where a limit on the drop is worthless: the reference has nothing to lose.

    It is right no more often than by chance, and on so many pictures that one which is right on
    half of what chance leaves would hardly be. A budget searches with the pictures that it has, so
    this is no part of `judge`.
    """
    if result.accuracy is None or gate.max_drop is None:
        return []
    top1 = result.accuracy.top1
    right, classes = top1.both_right + top1.lost, max(result.classes, 2)
    chance = 1 / classes
    above_chance = at_least(right, top1.images, chance) < RARE
    useful = (1 + chance) / 2
    if above_chance or 1 - at_least(right + 1, top1.images, useful) >= RARE:
        return []
    return [
        f"{result.reference} is right on {right} of {top1.images} pictures, no more than by chance "
        f"among {classes} classes: the labels are not those of this model, and tell nothing of a "
        "drop"
    ]


def _constant(result: ParityResult) -> list[str]:
    """What makes equal values of a regression worthless, or says that a model is dead."""
    same = f"gives the same for all {result.images} pictures"
    reference_says_nothing = len(result.reference_constant) == result.classes
    if result.output != "regression":
        # One class may be as unlikely for all pictures. Where most are, as of labels that are
        # rarely given, what tells no picture from another comes close to every answer.
        is_dead = len(result.candidate_constant) == result.classes and not reference_says_nothing
        return [f"{result.candidate} {same}"] if is_dead else []
    lines = []
    if reference_says_nothing:
        lines.append(f"{result.reference} {same}, so that nothing can be told from them")
    dead = [each for each in result.candidate_constant if each not in result.reference_constant]
    if dead:
        which = f" in output {', '.join(map(str, dead))}" if result.classes > 1 else ""
        lines.append(f"{result.candidate} {same}{which}")
    return lines
