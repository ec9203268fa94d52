"""The one number by which calibration weighs what an error costs, for each kind of output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.parity.measures import metrics, values

if TYPE_CHECKING:
    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.measures.formula import Formula


@dataclass(frozen=True)
class OutputMeasures:
    """A measure of two outputs (N, classes), 0 for equal ones, and what a person calls it."""

    divergence: Formula
    divergence_name: str


OUTPUT_MEASURES: dict[OutputKind, OutputMeasures] = {
    "single-label": OutputMeasures(metrics.kl_divergence, "KL, nats"),
    "multi-label": OutputMeasures(metrics.sigmoid_kl_divergence, "KL per label, nats"),
    "regression": OutputMeasures(values.error_per_variance, "error / variance"),
    "features": OutputMeasures(metrics.normalized_error, "normalized error"),
}
