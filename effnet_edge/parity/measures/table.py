"""The table of measures: one row for each, which everything else that tells a measure reads.

Gates and their files, options of the command line, tables, JSON, the report, the comparison of two
reports and the manifest know of a measure only what its row says. A new one is a row here and its
formula in `metrics`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from effnet_edge import nonfinite
from effnet_edge.outputs import OUTPUT_NAMES, OutputKind
from effnet_edge.parity.measures import metrics, spread, values
from effnet_edge.parity.measures.formula import Formula

if TYPE_CHECKING:
    from collections.abc import Mapping

    from effnet_edge.bundle import Measured
    from effnet_edge.nonfinite import JsonNumber

INTERVALS = "intervals"
"""The key under which a result's JSON has the 95 % intervals of those measures that have one."""


@dataclass(frozen=True)
class Limit:
    """How a gate bounds a measure; the measures of several kinds of output may share one.

    Attributes:
        name: the keyword of `Gate`.
        option: on the command line after `--`, and in gate files; in the units that are shown.
        metavar, subject: the unit and the measure, in the option's help.
        at_least: whether larger is better.
        lowest, highest: what the limit itself may be, in the stored unit.
        needs: what the models must have for it, as a person would say it.
    """

    name: str
    option: str
    metavar: str
    subject: str
    at_least: bool = False
    lowest: float = 0.0
    highest: float = math.inf
    needs: str = "classes"

    @property
    def sign(self) -> str:
        """Between a value that holds the limit and the limit."""
        return "≥" if self.at_least else "≤"

    def holds(self, value: float | None, limit: float) -> bool:
        """Whether a value keeps to the limit, itself included; NaN and None never do."""
        if value is None:
            return False
        return value >= limit if self.at_least else value <= limit


@dataclass(frozen=True)
class LabelledLoss:
    """Takes a measure from the `losses` against the labels or true values of the pictures."""

    outputs: tuple[OutputKind, ...]


@dataclass(frozen=True)
class Measure:
    """A row of the table.

    Attributes:
        key: its name in results and in JSON.
        titles: what a person calls it, by the kind of output if it differs.
        formula: of two outputs (N, classes), by the kind of output if not all have the same.
        factor, unit, style: from the stored to the shown value, what follows it, and the format
            specification.
        limit: how a gate bounds it; None for what none does.
        overview: whether it is among the few that are shown where there is little room.
        kept: whether a bundle's manifest keeps it.
        of_probabilities: what it is called when it is taken of the probabilities that the outputs
            stand for; None for what is the same then.
    """

    key: str
    titles: str | Mapping[OutputKind, str]
    formula: Formula | Mapping[OutputKind, Formula] | LabelledLoss = field(repr=False)
    factor: float = 1.0
    unit: str = ""
    style: str = ".3g"
    limit: Limit | None = None
    overview: bool = False
    kept: bool = False
    of_probabilities: str | None = None

    def formula_of(self, output: OutputKind) -> Formula | LabelledLoss | None:
        """The formula for a kind of output; None where that has no such measure."""
        if isinstance(self.formula, Formula):
            return self.formula
        if isinstance(self.formula, LabelledLoss):
            return self.formula if output in self.formula.outputs else None
        return self.formula.get(output)

    def title(self, output: OutputKind, *, as_probabilities: bool = False) -> str:
        """What it is called for a kind of output."""
        if as_probabilities and self.of_probabilities is not None:
            return self.of_probabilities
        return self.titles if isinstance(self.titles, str) else self.titles[output]

    def shown(self, stored: float) -> float:
        """A stored number in the unit that a person sees, the very one that `stored` was given."""
        return float(_decimal(stored) * _decimal(self.factor))

    def stored(self, shown: float) -> float:
        """A number that a person gives, in the stored unit.

        Of all floats it is the nearest, as a quotient of two counts is: 99.9 % are 999 of 1000.
        """
        return float(_decimal(shown) / _decimal(self.factor))

    def tell(self, value: JsonNumber) -> str:
        """Show a stored value, from JSON or not, with its unit."""
        number = nonfinite.decode(value)
        shown = None if number is None else self.shown(number)
        return nonfinite.tell(shown, self.style, self.unit)

    def tell_limit(self, limit: float) -> str:
        """Show a limit in the shown unit, with no more digits than it has."""
        shown = self.shown(limit)
        return nonfinite.tell(shown, "g", self.unit.removesuffix("s") if shown == 1 else self.unit)

    def tell_held(self, measured: Measured | None) -> str:
        """Show what a manifest has of this measure, with the limit that it was held to, if any."""
        if measured is None:
            return nonfinite.NOT_MEASURED
        told = self.tell(measured.value)
        if measured.at_least is not None:
            return f"{told} ≥ {self.tell_limit(measured.at_least)}"
        if measured.at_most is not None:
            return f"{told} ≤ {self.tell_limit(measured.at_most)}"
        return told

    def tell_result(self, document: Mapping[str, Any]) -> str:
        """Show what a result's JSON has of this measure, with its 95 % interval if it has one."""
        told = self.tell(document[self.key])
        if self.key not in document[INTERVALS]:
            return told
        low, high = (
            nonfinite.tell(self.shown(end), self.style) for end in document[INTERVALS][self.key]
        )
        return f"{told} (95 % interval {low} to {high})"


def _decimal(number: float) -> Decimal:
    """The number as it is written, where its float is only near that."""
    return Decimal(repr(float(number)))


_RELATIVE_ERROR = Limit("max_relative_error", "max-relative-error", "SHARE", "relative error")
_AGREEMENT = Limit(
    "min_agreement",
    "min-agreement",
    "PCT",
    "top-1 agreement, of independent labels the agreement of the whole set",
    at_least=True,
    highest=1.0,
)
_SQNR = Limit("min_sqnr_db", "min-sqnr", "DB", "SQNR", at_least=True, lowest=-math.inf)
_KL = Limit("max_kl", "max-kl", "NATS", "mean KL divergence")
_DROP = Limit(
    "max_drop",
    "max-drop",
    "POINTS",
    "top-1 drop, of a yes or no the drop of accuracy",
    needs="labelled classes",
)
_ERROR = Limit("max_error", "max-error", "UNITS", "absolute error, in the unit of the output")
_NRMSE = Limit(
    "max_nrmse",
    "max-nrmse",
    "SHARE",
    "root mean square error as a share of the spread over the pictures, of a regression each "
    "value's own",
    needs="classes or values",
)
_MAE_INCREASE = Limit(
    "max_mae_increase",
    "max-mae-increase",
    "UNITS",
    "increase of a regression's mean absolute error from the true values",
    needs="true values",
)

MEASURES: tuple[Measure, ...] = (
    Measure(
        "relative_error",
        "relative error",
        metrics.relative_error,
        style=".2g",
        limit=_RELATIVE_ERROR,
        overview=True,
        kept=True,
        of_probabilities="relative error of the probabilities",
    ),
    Measure(
        "max_abs_error",
        {kind: f"max |Δ{name[:-1]}|" for kind, name in OUTPUT_NAMES.items()},
        metrics.max_abs_error,
        limit=_ERROR,
        kept=True,
        of_probabilities="max |Δprobability|",
    ),
    Measure(
        "mean_abs_error",
        {kind: f"mean |Δ{name[:-1]}|" for kind, name in OUTPUT_NAMES.items()},
        metrics.mean_abs_error,
        of_probabilities="mean |Δprobability|",
    ),
    Measure(
        "top1_agreement",
        "top-1 agreement",
        {"single-label": metrics.top1_agreement},
        factor=100.0,
        unit=" %",
        style=".2f",
        limit=_AGREEMENT,
        overview=True,
        kept=True,
    ),
    Measure(
        "top5_agreement",
        "top-5 agreement",
        {"single-label": metrics.top5_agreement},
        factor=100.0,
        unit=" %",
        style=".2f",
    ),
    Measure(
        "label_set_agreement",
        "agreement of the set of labels",
        {"multi-label": metrics.label_set_agreement},
        factor=100.0,
        unit=" %",
        style=".2f",
        limit=_AGREEMENT,
        overview=True,
        kept=True,
    ),
    Measure(
        "label_agreement",
        "agreement per label",
        {"multi-label": metrics.label_agreement},
        factor=100.0,
        unit=" %",
        style=".3f",
    ),
    Measure(
        "sqnr_db",
        "SQNR",
        metrics.sqnr_db,
        unit=" dB",
        style=".1f",
        limit=_SQNR,
        overview=True,
        kept=True,
        of_probabilities="SQNR of the probabilities",
    ),
    Measure(
        "cosine",
        "cosine",
        # Of a regression, an offset outweighs everything else.
        {kind: metrics.cosine for kind in OUTPUT_NAMES if kind != "regression"},
        style=".6f",
        overview=True,
        of_probabilities="cosine of the probabilities",
    ),
    Measure(
        "nrmse",
        "RMSE / spread",
        {"regression": values.nrmse},
        limit=_NRMSE,
        overview=True,
        kept=True,
    ),
    Measure(
        "spread_error",
        "RMSE / spread",
        {"single-label": spread.spread_error, "multi-label": spread.spread_error},
        limit=_NRMSE,
        of_probabilities="RMSE / spread of the probabilities",
    ),
    Measure(
        "correlation",
        "correlation",
        {"regression": values.correlation},
        style=".6f",
        overview=True,
    ),
    Measure(
        "kl",
        {"single-label": "KL divergence", "multi-label": "KL divergence per label"},
        {"single-label": metrics.kl_divergence, "multi-label": metrics.sigmoid_kl_divergence},
        unit=" nats",
        limit=_KL,
        overview=True,
        kept=True,
    ),
    Measure(
        "top1_drop",
        {"single-label": "top-1 drop", "multi-label": "accuracy drop"},
        LabelledLoss(("single-label", "multi-label")),
        unit=" points",
        style=".2f",
        limit=_DROP,
        overview=True,
    ),
    Measure(
        "top5_drop",
        "top-5 drop",
        LabelledLoss(("single-label",)),
        unit=" points",
        style=".2f",
        overview=True,
    ),
    Measure(
        "mae_increase",
        "increase of the mean absolute error",
        LabelledLoss(("regression",)),
        limit=_MAE_INCREASE,
        overview=True,
    ),
)

BY_KEY: dict[str, Measure] = {measure.key: measure for measure in MEASURES}
LIMITS: dict[str, Limit] = {each.limit.name: each.limit for each in MEASURES if each.limit}


def measures_of(output: OutputKind) -> list[Measure]:
    """Those that a kind of output has, in the order in which they are told."""
    return [measure for measure in MEASURES if measure.formula_of(output)]


def limited_measure(limit: str, output: OutputKind) -> Measure | None:
    """The measure that a limit, by its name, bounds for a kind of output; None without one."""
    for measure in measures_of(output):
        if measure.limit and measure.limit.name == limit:
            return measure
    return None
