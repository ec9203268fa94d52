"""What a candidate loses, as the one number that its kind of output and the pictures allow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge import nonfinite
from effnet_edge.parity.measures.table import INTERVALS, limited_measure

if TYPE_CHECKING:
    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.measures.result import ParityResult
    from effnet_edge.parity.measures.table import Measure
    from effnet_edge.parity.report.document import Document


@dataclass(frozen=True)
class Loss:
    """One candidate's; more is worse. In `unit`.

    Attributes:
        value: NaN where the model gave NaN.
        interval: the ends of the 95 % interval, where there is one and it tells something.
        limit: what was allowed; None if nothing was said.
    """

    value: float
    interval: tuple[float, float] | None
    limit: float | None

    @property
    def ends(self) -> tuple[float, float]:
        """All that the number may be."""
        return self.interval or (self.value, self.value)


@dataclass(frozen=True)
class LossKind:
    """What is told: its name, its unit, what it means in a sentence, and the limit that bounds it.

    `limit` is one of `measures.table`, by its name.
    """

    limit: str
    title: str
    unit: str
    meaning: str

    def unit_of(self, value: float) -> str:
        """The unit behind a value: "1 point"."""
        return self.unit.removesuffix("s") if value == 1 else self.unit


_DROP = LossKind(
    "max_drop",
    "top-1 drop",
    "points",
    "Of a hundred pictures, how many fewer the model gets right than the original. The bar is "
    "where the true number lies in 19 of 20 cases (the 95 % interval): more pictures make it "
    "shorter.",
)
_CHANGED = LossKind(
    "min_agreement",
    "other answers",
    "%",
    "Of a hundred pictures, to how many the model gives another answer than the original. The "
    "pictures have no labels, so nobody knows which of the two is right.",
)
_CHANGED_LABELS = LossKind(
    "min_agreement",
    "other labels",
    "%",
    "Of a hundred pictures, to how many the model gives another set of labels than the original.",
)
_ERROR = LossKind(
    "min_sqnr_db",
    "error",
    "%",
    "How strong the error in the features is, next to the features themselves (10 % is an SQNR of "
    "20 dB).",
)
_KL = LossKind(
    "max_kl",
    "KL divergence",
    "nats",
    "How far the model's probabilities are from the original's, in the mean of all pictures; 0 is "
    "the same.",
)
_KL_PER_LABEL = LossKind(
    "max_kl",
    "KL divergence per label",
    "nats",
    "How far the model's probability of each label is from the original's, in the mean of all "
    "labels and pictures; 0 is the same.",
)
_SPREAD = LossKind(
    "max_nrmse",
    "error of the spread",
    "%",
    "How large the error of the values is (its root mean square), next to how much the values of "
    "the original vary from picture to picture; 100 % is as bad as always answering their mean.",
)


def loss_kind(document: Document) -> LossKind:
    """What all candidates of a document are told by."""
    if document["output"] == "features":
        return _ERROR
    if document["output"] == "regression":
        return _SPREAD
    if document["output"] == "multi-label":
        return _CHANGED_LABELS
    return _DROP if all(each["accuracy"] for each in document["candidates"]) else _CHANGED


def bounded_measure(document: Document) -> Measure:
    """The measure that the number is made of, whose limit bounds it."""
    measure = limited_measure(loss_kind(document).limit, document["output"])
    assert measure is not None
    return measure


def loss_of(document: Document, candidate: Document) -> Loss:
    """The number of one candidate, by `loss_kind`."""
    kind, key = loss_kind(document), bounded_measure(document).key
    value, limit = _number(candidate[key]), _limit(candidate, key)
    if kind is _DROP:
        low, high = (_number(end) for end in candidate[INTERVALS][key])
        # One that only rounds otherwise loses nothing on other pictures either.
        interval = None if candidate["same_but_for_rounding"] else (low, high)
        return Loss(value, interval, limit)
    if kind is _SPREAD:
        return Loss(100 * value, None, None if limit is None else 100 * limit)
    if kind is _ERROR:
        return Loss(error_percent(value), None, None if limit is None else error_percent(limit))
    return Loss(100 * (1 - value), None, None if limit is None else 100 * (1 - limit))


def divergence_kind(output: OutputKind) -> LossKind:
    """What tells small losses of a kind of output apart, on few pictures and without labels."""
    kinds = {"regression": _SPREAD, "features": _ERROR, "multi-label": _KL_PER_LABEL}
    return kinds.get(output, _KL)


def telling_measures(output: OutputKind) -> list[Measure]:
    """The few that tell such losses in a table: the last one only of labelled pictures."""
    wanted = dict.fromkeys((divergence_kind(output).limit, "min_agreement", "max_drop"))
    return [measure for each in wanted if (measure := limited_measure(each, output))]


def divergence(result: ParityResult) -> float:
    """The number of one candidate, by `divergence_kind`; NaN where it gave NaN."""
    kind = divergence_kind(result.output)
    measure = limited_measure(kind.limit, result.output)
    value = None if measure is None else result.value(measure.key)
    return math.nan if value is None else in_unit(kind, value)


def in_unit(kind: LossKind, stored: float) -> float:
    """A value or a limit of a `divergence_kind`, in the unit that it is told in."""
    if kind is _ERROR:
        return error_percent(stored)
    return 100 * stored if kind is _SPREAD else stored


def error_percent(sqnr_db: float) -> float:
    """An SQNR in decibels as the error's share of the signal's strength, in per cent."""
    return math.inf if sqnr_db == -math.inf else 100 * 10 ** (-sqnr_db / 20)


def _limit(candidate: Document, key: str) -> float | None:
    for check in candidate["checks"]:
        if check["measure"] == key:
            return nonfinite.decode(check["limit"])
    return None


def _number(value: nonfinite.JsonNumber) -> float:
    number = nonfinite.decode(value)
    return math.nan if number is None else number
