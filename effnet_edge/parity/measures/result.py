"""What a comparison of two models found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effnet_edge import nonfinite
from effnet_edge.parity.measures.table import (
    BY_KEY,
    INTERVALS,
    limited_measure,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.measures.accuracy import AccuracyDrop
    from effnet_edge.parity.measures.formula import Loss
    from effnet_edge.parity.measures.values import TruthErrors


@dataclass(frozen=True)
class ParityResult:
    """How far `candidate` is from `reference`.

    Every measure of `measures.table` is an attribute by its key, in its stored unit: shares 0..1,
    decibels, nats, points; `result.sqnr_db` is infinite for equal outputs. It is None where it was
    not measured, because the kind of output has no such measure or the pictures no labels.
    """

    reference: str
    candidate: str
    reference_precision: str
    """The precision that really ran, not the one asked for."""
    candidate_precision: str
    images: int
    classes: int
    values: Mapping[str, float]
    """The measures of the outputs themselves, by key; others are in `accuracy` and `truth`."""
    reference_nonfinite: int
    """Images for which the reference gave a NaN or infinite logit."""
    candidate_nonfinite: int
    """Images for which the candidate gave a NaN or infinite logit."""
    accuracy: AccuracyDrop | None
    """None without labels."""
    image_source: str = ""
    """Where the images came from, as a person would say it."""
    skipped: tuple[str, ...] = ()
    """One line for each image that could not be read; they are not among `images`."""
    output: OutputKind = "single-label"
    """What the numbers of the models mean."""
    as_probabilities: bool = False
    """Whether errors, SQNR and cosine are of the probabilities; see `measures.probabilities`."""
    truth: TruthErrors | None = None
    """Of a regression whose true values are known."""
    reference_constant: tuple[int, ...] = ()
    """Outputs that are the same for all pictures, of which there are several."""
    candidate_constant: tuple[int, ...] = ()

    def value(self, key: str) -> float | None:
        """A measure by its key; None where it was not measured."""
        loss = self._losses().get(key)
        return loss.value if loss else self.values.get(key)

    def __getattr__(self, key: str) -> float | None:
        # Before the fields are set, as in a copy, `values` itself comes here.
        if key not in BY_KEY:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {key!r}")
        return self.value(key)

    @property
    def agreement(self) -> float | None:
        """Share of images with the same answer, 0..1: best class or set of labels."""
        measure = limited_measure("min_agreement", self.output)
        return self.value(measure.key) if measure else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values only, with a key for every measure; numbers as `effnet_edge.nonfinite` says.

        "intervals" has the two ends of the 95 % interval, by the key of the measure.
        """
        fields: dict[str, Any] = {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name != "values"
        }
        document: dict[str, Any] = nonfinite.encode(
            {
                **fields,
                **{key: self.value(key) for key in BY_KEY},
                INTERVALS: {key: loss.interval for key, loss in self._losses().items()},
                "accuracy": self.accuracy.to_dict() if self.accuracy else None,
                "truth": self.truth.to_dict() if self.truth else None,
            }
        )
        return document

    def _losses(self) -> dict[str, Loss]:
        labelled = self.accuracy or self.truth
        return labelled.losses() if labelled else {}
