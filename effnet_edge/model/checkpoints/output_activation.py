"""What a model was saved with behind its classifier, held against what is exported of it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.errors import CheckpointWarning, UsageError

if TYPE_CHECKING:
    from effnet_edge.outputs import OutputKind

_GOES_WITH: dict[str, OutputKind] = {"softmax": "single-label", "sigmoid": "multi-label"}


@dataclass(frozen=True)
class OutputActivation:
    """A softmax or a sigmoid at the end of a model.

    Attributes:
        layer: its name in the model.
        kind: "softmax" or "sigmoid".
    """

    layer: str
    kind: str


def check_output_activation(
    origin: str, activation: OutputActivation | None, output_kind: OutputKind
) -> None:
    """Hold it against an output that is given without it.

    A class is the same without it, and its probability is made where the model runs, by the kind of
    the output: of another kind it is another one, which is a warning. A value is not the same.

    Raises:
        UsageError: the output is values.
    """
    if activation is None or output_kind == "features":
        return
    told = f"{origin}: its layer {activation.layer} ends in a {activation.kind}, and"
    if output_kind == "regression":
        raise UsageError(
            f"{told} --regression gives the numbers before it: leave --regression out, or save "
            "a model whose last layer has no activation"
        )
    if output_kind != _GOES_WITH[activation.kind]:
        with_option = "--multi-label gives a sigmoid's probabilities: leave it out for others"
        without = "without --multi-label the probabilities are those of a softmax"
        text = with_option if output_kind == "multi-label" else without
        warnings.warn(f"{told} {text}", CheckpointWarning, stacklevel=2)
