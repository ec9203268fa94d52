"""Measures of the numbers that a model gives, taken of the probabilities that they stand for.

Of a model that ends in a softmax or a sigmoid, only probabilities are known for sure: what was
rounded to zero has no logit any more. So SQNR, cosine and errors are those of the probabilities,
where a lost one counts as little as it is. Not of their logarithms, whose error is largest for the
classes that matter least. Agreement and divergence are of probabilities anyway.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from effnet_edge.parity.measures.metrics import Floats, sigmoid, softmax

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.measures.formula import Formula, Partial


def probabilities(logits: ArrayLike, output: OutputKind) -> Floats:
    """Of classes by a softmax, of independent labels by a sigmoid: (N, classes), 0..1."""
    return sigmoid(logits) if output == "multi-label" else softmax(logits)


def of_probabilities(formula: Formula, output: OutputKind) -> Formula:
    """The same formula of the probabilities of what it is given."""

    def partial(reference: ArrayLike, candidate: ArrayLike) -> Partial:
        return formula.partial(probabilities(reference, output), probabilities(candidate, output))

    return replace(formula, partial=partial)
