"""What comes out of a model file: logits, or what a softmax or a sigmoid at its end made of them.

Such answers are turned back into logits. Those of a softmax are known up to a number that all
classes share, which changes no probability.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from effnet_edge.errors import BackendError
from effnet_edge.parity.inside.tracing import LOGITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from effnet_edge.outputs import OutputKind

Number = TypeVar("Number", bound=np.generic)

Ending = Literal["softmax", "log-softmax", "sigmoid"]

ENDING_NAMES: dict[Ending, str] = {
    "softmax": "a softmax",
    "log-softmax": "a log-softmax",
    "sigmoid": "a sigmoid",
}

OUTPUT_OF_ENDING: dict[Ending, OutputKind] = {
    "softmax": "single-label",
    "log-softmax": "single-label",
    "sigmoid": "multi-label",
}
"""What the numbers of such a model mean."""


# Of a thousand shares of one in FP16, as a share of their sum.
_ROUNDING = 0.01
_WHOLES = (1.0, 100.0)
"""What shares are of: one, or a hundred where they are per cent."""
_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class WayOut:
    """An output of a model.

    Attributes:
        name: of the output.
        ending: what its numbers went through last; None for logits and features.
        logits: the tensor that the ending is given; the output itself without one.
        by_graph: whether the file shows the ending; else answers or a person told it, and the
            answers that follow are held to it.
    """

    name: str
    ending: Ending | None
    logits: str
    by_graph: bool = True

    def ending_in(self, ending: Ending) -> WayOut:
        """The same with an ending that the file does not show, nor where its logits are."""
        return replace(self, ending=ending, logits=LOGITS, by_graph=False)

    def rows(self, answers: NDArray[np.generic], model: str) -> NDArray[np.float32]:
        """One row of logits an image, (N, classes), of answers (N, classes, 1, …).

        Probabilities of zero count as the least that their type has above it, and those of one by
        a sigmoid as the largest below it: what lies beyond was lost when they were rounded.

        Raises:
            BackendError: the answers are no floating-point numbers, or not such as the ending
                gives.
        """
        if answers.dtype.name not in _FLOATS:
            raise BackendError(
                f"{model}: its output {self.name!r} is {answers.dtype.name}, and logits, "
                "probabilities and features are floating-point numbers"
            )
        values = without_ones(answers)
        if self.ending is not None and not self.by_graph:
            self._check(values, self.ending, model)
        if self.ending in (None, "log-softmax"):
            return values.astype(np.float32)
        kind = np.finfo(values.dtype.name)
        chances = np.maximum(values.astype(np.float64), float(kind.smallest_subnormal))
        if self.ending == "sigmoid":
            chances = np.minimum(chances, 1 - float(kind.epsneg))
            return (np.log(chances) - np.log1p(-chances)).astype(np.float32)
        return np.log(chances).astype(np.float32)

    def _check(self, values: NDArray[np.generic], ending: Ending, model: str) -> None:
        rows = _finite_rows(values)
        wrong = ~_CAN_BE[ending](rows)
        if wrong.any():
            first = rows[wrong][0]
            raise BackendError(
                f"{model}: its output {self.name!r} is taken for what {ENDING_NAMES[ending]} "
                f"gives, and has an answer from {first.min():.3g} to {first.max():.3g} with a sum "
                f"of {first.sum():.4g}, which none gives: say what it is with --ending"
            )


def ending_of(answers: NDArray[np.generic], output: OutputKind) -> Ending | None:
    """What a model ends in by several answers (N, classes), where no graph shows it.

    Those of a softmax are shares of a whole in every row, those of a sigmoid lie within 0 and 1;
    logits do neither, in several rows at once. Zeros alone, and what is not finite, tell nothing.

    Args:
        output: what the numbers mean as far as that is known: independent labels end in no softmax.
    """
    rows = _finite_rows(answers)
    if not rows.any():
        return None
    possible: tuple[Ending, ...] = ("sigmoid",)
    if output == "single-label" and rows.shape[1] > 1:
        possible = ("softmax", "log-softmax", "sigmoid")
    return next((each for each in possible if _CAN_BE[each](rows).all()), None)


def _finite_rows(values: NDArray[np.generic]) -> NDArray[np.float64]:
    rows = values.astype(np.float64).reshape(len(values), -1)
    return rows[np.isfinite(rows).all(axis=1)]


def _are_shares(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    sums = rows.sum(axis=1)
    are_whole = np.any([np.abs(sums / whole - 1) <= _ROUNDING for whole in _WHOLES], axis=0)
    return np.asarray((rows >= 0).all(axis=1) & are_whole)


def _are_logarithms_of_shares(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray((rows <= 0).all(axis=1)) & _are_shares(np.exp(np.minimum(rows, 0)))


def _lie_within_one(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(((rows >= 0) & (rows <= 1)).all(axis=1))


_CAN_BE: dict[Ending, Callable[[NDArray[np.float64]], NDArray[np.bool_]]] = {
    "softmax": _are_shares,
    "log-softmax": _are_logarithms_of_shares,
    "sigmoid": _lie_within_one,
}
"""Whether each row of answers (N, classes) may be one that such a model gives."""


def without_ones(answers: NDArray[Number]) -> NDArray[Number]:
    """(N, classes, 1, 1) and the like as (N, classes); other shapes as they are."""
    if answers.ndim > 2 and max(answers.shape[1:]) == np.prod(answers.shape[1:]):
        return answers.reshape(len(answers), -1)
    return answers
