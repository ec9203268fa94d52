"""What the numbers that a network gives mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

OutputKind = Literal["single-label", "multi-label", "regression", "features"]
"""Logits of classes that exclude each other (softmax), logits of labels that each hold or not
(sigmoid), values as they are, or the pooled features of a network without a classifier."""

OUTPUT_NAMES: dict[OutputKind, str] = {
    "single-label": "logits",
    "multi-label": "logits",
    "regression": "values",
    "features": "features",
}
"""What an exported graph calls its output."""

OUTPUT_UNITS: dict[OutputKind, tuple[str, str]] = {
    "single-label": ("class", "classes"),
    "multi-label": ("label", "labels"),
    "regression": ("value", "values"),
    "features": ("feature", "features"),
}
"""What one column of the output is, as a person would say it, and what several are."""

DECISION_THRESHOLD = 0.5
"""The least probability at which a label of a multi-label model counts as given."""

_ONE_OUTPUT = (
    "one output is no choice of a class, as its softmax is 100 % for every picture: "
    "say {} for a yes or no (a probability by sigmoid), or {} for a value"
)
ONE_OUTPUT = _ONE_OUTPUT.format("--multi-label", "--regression")
"""What is told of a single output that is said to choose between classes."""


def told_outputs(kind: OutputKind, count: int) -> str:
    """How many numbers a picture gets, in words: "5 classes"."""
    one, several = OUTPUT_UNITS[kind]
    return f"{count} {one if count == 1 else several}"


def check_one_output(kind: OutputKind, count: int, argument: str | None = None) -> None:
    """Raise UsageError for a single output that is said to choose between classes.

    Args:
        argument: by which Python code says what the outputs are, where that asked for it; else
            options of the command line are named.
    """
    if kind != "single-label" or count != 1:
        return
    if argument is None:
        raise UsageError(ONE_OUTPUT)
    said = _ONE_OUTPUT.format(f"{argument}='multi-label'", f"{argument}='regression'")
    raise UsageError(f"num_classes 1: {said}")


def value_names(count: int, labels: Sequence[str] | None = None) -> list[str]:
    """The names of a regression's values: those that it has, else "value", or "value_0", …."""
    if labels:
        return list(labels)
    return ["value"] if count == 1 else [f"value_{index}" for index in range(count)]
