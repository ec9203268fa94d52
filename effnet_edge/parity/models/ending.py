"""What comes out of a model file: logits, or what a softmax or a sigmoid at its end made of them.

Such answers are turned back into logits. Those of a softmax are known up to a number that all
classes share, which changes no probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from effnet_edge.errors import BackendError

if TYPE_CHECKING:
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


# Of a thousand shares of one in FP16.
_ROUNDING = 0.01
_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class WayOut:
    """An output of a model.

    Attributes:
        name: of the output.
        ending: what its numbers went through last; None for logits and features.
        logits: the tensor that the ending is given; the output itself without one.
    """

    name: str
    ending: Ending | None
    logits: str

    def rows(self, answers: NDArray[np.generic], model: str) -> NDArray[np.float32]:
        """One row of logits an image, (N, classes), of answers (N, classes, 1, …).

        Probabilities of zero count as the least that their type has above it, and those of one by
        a sigmoid as the largest below it: what lies beyond was lost when they were rounded.

        Raises:
            BackendError: the answers are no floating-point numbers.
        """
        if answers.dtype.name not in _FLOATS:
            raise BackendError(
                f"{model}: its output {self.name!r} is {answers.dtype.name}, and logits, "
                "probabilities and features are floating-point numbers"
            )
        values = without_ones(answers)
        if self.ending in (None, "log-softmax"):
            return values.astype(np.float32)
        kind = np.finfo(values.dtype.name)
        chances = np.maximum(values.astype(np.float64), float(kind.smallest_subnormal))
        if self.ending == "sigmoid":
            chances = np.minimum(chances, 1 - float(kind.epsneg))
            return (np.log(chances) - np.log1p(-chances)).astype(np.float32)
        return np.log(chances).astype(np.float32)


def ending_of(answers: NDArray[np.float32]) -> Ending | None:
    """What a model of classes ends in by its answers (N, classes), where no graph shows it.

    Those of a softmax are shares of one in every row; logits are not, in several rows at once. What
    a sigmoid gives looks like logits.
    """
    rows = answers.astype(np.float64)
    if rows.ndim != 2 or rows.shape[1] < 2:
        return None
    if (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, rtol=0, atol=_ROUNDING):
        return "softmax"
    if (rows <= 0).all() and np.allclose(np.exp(rows).sum(axis=1), 1, rtol=0, atol=_ROUNDING):
        return "log-softmax"
    return None


def without_ones(answers: NDArray[Number]) -> NDArray[Number]:
    """(N, classes, 1, 1) and the like as (N, classes); other shapes as they are."""
    if answers.ndim > 2 and max(answers.shape[1:]) == np.prod(answers.shape[1:]):
        return answers.reshape(len(answers), -1)
    return answers
