"""What says of each kind of output that a candidate's is still the reference's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.parity.measures import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.measures.metrics import Bools, Floats


@dataclass(frozen=True)
class OutputMeasures:
    """Measures of two outputs (N, classes), a value an image; None where there is no such thing.

    Attributes:
        kl: of the probabilities, nats.
        agreement: whether the answer is the same.
        overlap: share of the answer that is the same, 0..1.
        divergence: the one number, 0 or more, by which calibration weighs what a tensor costs.
        divergence_name: what a person calls that number.
    """

    kl: Callable[[Floats, Floats], Floats] | None
    agreement: Callable[[Floats, Floats], Bools] | None
    overlap: Callable[[Floats, Floats], Floats] | None
    divergence: Callable[[ArrayLike, ArrayLike], float]
    divergence_name: str


OUTPUT_MEASURES: dict[OutputKind, OutputMeasures] = {
    "single-label": OutputMeasures(
        metrics.kl_per_image,
        metrics.top1_matches,
        metrics.top5_overlap,
        metrics.kl_divergence,
        "KL, nats",
    ),
    "multi-label": OutputMeasures(
        metrics.sigmoid_kl_per_image,
        metrics.label_set_matches,
        metrics.label_overlap,
        metrics.sigmoid_kl_divergence,
        "KL per label, nats",
    ),
    "features": OutputMeasures(None, None, None, metrics.normalized_error, "normalized error"),
}


@dataclass(frozen=True)
class Shown:
    """A measure as a person is shown it.

    Attributes:
        key: its name in `ParityResult` and in the manifest.
        factor: from the stored value to the shown one.
        style: format specification.
        brief: whether it is among the few that a manifest keeps.
    """

    key: str
    title: str
    factor: float
    unit: str
    style: str
    brief: bool = True

    def tell(self, value: object) -> str:
        """The value with its unit; null stands for an infinity, which JSON cannot hold."""
        if value is None:
            return f"∞{self.unit}"
        if not isinstance(value, (int, float)):
            return str(value)
        return f"{self.factor * value:{self.style}}{self.unit}"


SHOWN_MEASURES: dict[OutputKind, tuple[Shown, ...]] = {
    "single-label": (
        Shown("top1_agreement", "top-1 agreement", 100.0, " %", ".2f"),
        Shown("top5_agreement", "top-5 agreement", 100.0, " %", ".2f", brief=False),
        Shown("kl", "KL divergence", 1.0, " nats", ".3g"),
    ),
    "multi-label": (
        Shown("label_set_agreement", "same set of labels", 100.0, " %", ".2f"),
        Shown("label_agreement", "same decision per label", 100.0, " %", ".3f", brief=False),
        Shown("kl", "KL divergence per label", 1.0, " nats", ".3g"),
    ),
    "features": (),
}
"""What each kind of output has beside the errors, which all have."""


def brief_measures(output: OutputKind) -> list[Shown]:
    """Those that a manifest keeps."""
    return [shown for shown in SHOWN_MEASURES[output] if shown.brief]
