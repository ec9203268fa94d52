"""From what a model answers to an image to classes with probabilities, or to named values."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from effnet_edge.errors import NotFiniteError, UsageError
from effnet_edge.outputs import DECISION_THRESHOLD, OUTPUT_UNITS, told_outputs, value_names

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from effnet_edge.labels import Label
    from effnet_edge.outputs import OutputKind

TOP = 5


@dataclass(frozen=True)
class Prediction:
    """One class of one image.

    `probability`, 0..1, is its softmax share or, where classes do not exclude each other, its
    sigmoid.
    """

    index: int
    label: str
    wnid: str | None
    probability: float


@dataclass(frozen=True)
class Estimate:
    """One value of a regression for one image, in the unit that the model was trained with."""

    index: int
    label: str
    value: float


Told = TypeVar("Told", Prediction, Estimate)
"""What a person is told of a picture, several times over."""


class Values:
    """Names the values that a regression answers with.

    Args:
        count: how many there are.
        labels: of the values, or None for "value", or "value_0", ….

    Raises:
        UsageError: the model gives no values.
    """

    def __init__(self, kind: OutputKind, count: int, labels: tuple[Label, ...] | None) -> None:
        if kind != "regression":
            instead = "infer" if kind == "features" else "classify"
            raise UsageError(
                f"the bundle gives {OUTPUT_UNITS[kind][1]} and no values: "
                f"use EngineRunner.{instead}"
            )
        self._names = value_names(count, [label.name for label in labels or ()])

    def of(self, values: npt.NDArray[np.float32], picture: str = "the picture") -> list[Estimate]:
        """The values of one image, in their order, from the model's answer (count,).

        Raises:
            NotFiniteError: a value is NaN or infinite; the text names the `picture`.
        """
        check_finite(values, "regression", picture)
        return [
            Estimate(index, name, float(value))
            for index, (name, value) in enumerate(zip(self._names, values, strict=True))
        ]


class Classes:
    """Chooses and names the classes that a model answers with.

    Args:
        labels: of the model's classes, or None for "class 0", ….
        top: so many at most; all, without a limit, where classes do not exclude each other, else 5.
        threshold: the least probability, 0..1, of independent classes; 0.5 if None.

    Raises:
        UsageError: the model gives features or values, an option is out of its range, or a
            threshold is asked of classes that exclude each other.
    """

    def __init__(
        self,
        kind: OutputKind,
        labels: tuple[Label, ...] | None,
        top: int | None = None,
        threshold: float | None = None,
    ) -> None:
        if kind == "features":
            raise UsageError(
                "the bundle gives features and has no classes: use EngineRunner.infer in Python"
            )
        if kind == "regression":
            raise UsageError(
                "the bundle gives values and has no classes: use EngineRunner.estimate in Python, "
                "or effnet-edge predict without --top and --threshold"
            )
        if top is not None and not (isinstance(top, Integral) and top >= 1):
            raise UsageError(f"top {top!r}: needs a whole number of 1 or more")
        if threshold is not None and kind == "single-label":
            raise UsageError("a threshold goes with multi-label bundles: use top instead")
        if threshold is not None and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
            raise UsageError(f"threshold {threshold!r}: needs a number of 0 to 1")
        self._labels = labels
        self._independent = kind == "multi-label"
        self._top = TOP if top is None and not self._independent else top
        self._threshold = DECISION_THRESHOLD if threshold is None else threshold

    def of(self, logits: npt.NDArray[np.float32], picture: str = "the picture") -> list[Prediction]:
        """The classes of one image, best first, from its logits (classes,).

        Raises:
            NotFiniteError: a logit is NaN or infinite; the text names the `picture`.
        """
        check_finite(logits, "single-label", picture)
        probabilities = _sigmoid(logits) if self._independent else _softmax(logits)
        best = np.argsort(-probabilities, kind="stable")
        if self._independent:
            best = best[probabilities[best] >= self._threshold]
        return [self._named(int(index), float(probabilities[index])) for index in best[: self._top]]

    def _named(self, index: int, probability: float) -> Prediction:
        if self._labels is None:
            return Prediction(index, f"class {index}", None, probability)
        label = self._labels[index]
        return Prediction(index, label.name, label.wnid, probability)


def each_row(
    told: Callable[[npt.NDArray[np.float32], str], list[Told]],
    answers: npt.NDArray[np.float32],
    count: int,
) -> list[list[Told]]:
    """What `told` makes of each row of answers (N, count).

    Raises:
        UsageError: they have another shape.
    """
    try:
        rows = np.asarray(answers)
    except ValueError:  # rows of several lengths
        rows = np.empty(0, object)
    if rows.ndim != 2 or rows.shape[1] != count or rows.dtype.kind != "f":
        raise UsageError(
            f"predictions takes what infer gives, float32 (N, {count}), got {rows.dtype} "
            f"{rows.shape}"
        )
    return [told(row, f"picture {number}") for number, row in enumerate(rows, start=1)]


def check_finite(answer: npt.NDArray[np.float32], kind: OutputKind, picture: str) -> None:
    """Raise NotFiniteError where a number of an answer (classes,) is NaN or infinite."""
    finite = np.isfinite(answer)
    if not finite.all():
        raise NotFiniteError(
            f"{picture}: the model's answer is no number (NaN or infinite in "
            f"{int((~finite).sum())} of {told_outputs(kind, len(answer))}): "
            "run it in FP32, or export it again"
        )


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    shares: npt.NDArray[np.float64] = exponentials / exponentials.sum()
    return shares


def _sigmoid(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    # exp(−ln(1 + exp(−x))), which does not overflow.
    probabilities: npt.NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return probabilities
