"""What the numbers that a network gives mean."""

from __future__ import annotations

from typing import Literal

OutputKind = Literal["single-label", "multi-label", "features"]
"""Logits of classes that exclude each other (softmax), logits of labels that each hold or not
(sigmoid), or the pooled features of a network without a classifier."""

OUTPUT_NAMES: dict[OutputKind, str] = {
    "single-label": "logits",
    "multi-label": "logits",
    "features": "features",
}
"""What an exported graph calls its output."""

OUTPUT_UNITS: dict[OutputKind, str] = {
    "single-label": "classes",
    "multi-label": "labels",
    "features": "features",
}
"""What the columns of the output are, as a person would say it."""

DECISION_THRESHOLD = 0.5
"""The least probability at which a label of a multi-label model counts as given."""
