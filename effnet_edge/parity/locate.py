"""Where two models part: the first node, in the order of execution, whose output differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from effnet_edge.parity.metrics import max_abs_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from effnet_edge.parity.classifiers import Activations, OnnxClassifier

# So many tensors are held at a time: a whole B7 would not fit a small machine.
TENSORS_AT_ONCE = 32


class Traceable(Protocol):
    """A model that shows its inner tensors by name."""

    def tensor_names(self) -> list[str]:
        """All that can be asked for."""

    def activations(self, batch: NDArray[np.uint8], names: Sequence[str]) -> Activations:
        """These tensors, float32 with the batch in front, for uint8 images (N, H, W, 3)."""


@dataclass(frozen=True)
class Divergence:
    """The first node that differs.

    Attributes:
        node: the name of the node's output, which is the path of the PyTorch module.
        operation: the ONNX operation, with its padding if it has one.
        problem: what is wrong with it, in words.
    """

    node: str
    operation: str
    problem: str

    def __str__(self) -> str:
        return f"{self.node} ({self.operation}): {self.problem}"


def first_divergence(
    reference: Traceable,
    candidate: OnnxClassifier,
    batch: NDArray[np.uint8],
    tolerance: float,
) -> Divergence | None:
    """The first tensor of `candidate` that differs from the reference's of the same name.

    Args:
        batch: uint8 images (N, H, W, 3); one or two are enough.
        tolerance: largest |Δ| allowed, as a share of the reference tensor's largest magnitude.
            (Its range would be next to nothing for a gate that is open alike everywhere.)

    Returns:
        None where every tensor that both have is within the tolerance.
    """
    known = set(reference.tensor_names())
    names = [name for name in candidate.tensor_names() if name in known]
    for start in range(0, len(names), TENSORS_AT_ONCE):
        some = names[start : start + TENSORS_AT_ONCE]
        expected = reference.activations(batch, some)
        found = candidate.activations(batch, some)
        for name in some:
            problem = _problem(expected[name], found[name], tolerance)
            if problem:
                return Divergence(name, candidate.op_type(name), problem)
    return None


def _problem(
    expected: NDArray[np.float32], found: NDArray[np.float32], tolerance: float
) -> str | None:
    if expected.shape != found.shape:
        return f"its shape is {_shape(found)} and should be {_shape(expected)}"
    error, scale = max_abs_error(expected, found), float(np.abs(expected).max())
    # Written so that NaN counts as a difference.
    if not error <= tolerance * scale:
        return f"it differs by {error:.2g} where its largest value is {scale:.2g}"
    return None


def _shape(array: NDArray[np.float32]) -> str:
    return "×".join(str(size) for size in array.shape)
