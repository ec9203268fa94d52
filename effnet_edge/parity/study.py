"""Several candidates against one reference, on the same pictures in one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity.comparison import Comparison, logits_of
from effnet_edge.parity.measures.answers import Answers, Flip, FlipCollector
from effnet_edge.parity.measures.label_changes import LabelChanges
from effnet_edge.parity.measures.metrics import finite_images
from effnet_edge.parity.measures.value_answers import (
    Difference,
    DifferenceCollector,
    ValueAnswers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.comparison import Classifier
    from effnet_edge.parity.measures.result import ParityResult
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Labels, Outcome, Pictures
    from effnet_edge.progress import Steps

_KEPT_NOT_FINITE = 2


@dataclass(frozen=True)
class Study:
    """One candidate: the measures, each answer, and the flipped pictures.

    `answers` and `flips` are of one class a picture, `label_changes` of independent labels,
    `values` and `differences` of a regression. `not_finite` has pixels, uint8 (n, H, W, C), of
    pictures that only the candidate answers with a NaN or an infinity, a few of them.
    """

    result: ParityResult
    answers: Answers | None
    label_changes: LabelChanges | None
    flips: list[Flip]
    values: ValueAnswers | None = None
    differences: tuple[Difference, ...] = ()
    not_finite: tuple[NDArray[np.uint8], ...] = ()


@dataclass(frozen=True)
class Compared:
    """A batch with what all models answered to it.

    Attributes:
        outcomes: of the pictures, also of those between them that cannot be read.
        labels: of those that were read, as of `Pictures.batches`.
        answers: (N, outputs) of the reference and of each candidate; none where no picture was
            read.
    """

    outcomes: tuple[Outcome, ...]
    labels: Labels | None
    answers: tuple[NDArray[np.float32], ...]


def study(
    reference: Classifier,
    candidates: Sequence[Classifier],
    image_set: Pictures,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 8,
    output: OutputKind = "single-label",
    as_probabilities: bool = False,
    progress: Steps | None = None,
    on_batch: Callable[[Compared], None] | None = None,
) -> list[Study]:
    """Run the reference once and every candidate over the same pixels, a batch at a time.

    Args:
        on_batch: is given what all of them answered, in the order of the pictures.

    Raises:
        UsageError, BackendError: as `effnet_edge.parity.compare`.
    """
    runs = [_Run(reference, each, output, as_probabilities) for each in candidates]
    skipped: list[str] = []
    done, total = 0, len(image_set)
    outcomes: list[Outcome] = []
    for pixels, labels in image_set.batches(preprocessing, batch_size, skipped, outcomes):
        expected = logits_of(reference, pixels)
        answers = [run.add(pixels, expected, labels) for run in runs]
        if on_batch:
            on_batch(Compared(tuple(outcomes), labels, (expected, *answers)))
        outcomes.clear()
        done += len(pixels)
        if progress:
            progress(done + len(skipped), total)
    if on_batch and outcomes:
        on_batch(Compared(tuple(outcomes), None, ()))
    return [run.finish(image_set.source, tuple(skipped)) for run in runs]


class _Run:
    """One candidate under way."""

    def __init__(
        self,
        reference: Classifier,
        candidate: Classifier,
        output: OutputKind,
        as_probabilities: bool,
    ) -> None:
        self._candidate = candidate
        self._output = output
        self._comparison = Comparison(
            reference.name,
            candidate.name,
            reference.execution_precision,
            candidate.execution_precision,
            output,
            as_probabilities=as_probabilities,
        )
        self._answers: list[Answers] = []
        self._label_changes: list[LabelChanges] = []
        self._flips = FlipCollector()
        self._values: list[ValueAnswers] = []
        self._differences = DifferenceCollector()
        self._not_finite: list[NDArray[np.uint8]] = []

    def add(
        self,
        pixels: NDArray[np.uint8],
        expected: NDArray[np.float32],
        labels: Labels | None,
    ) -> NDArray[np.float32]:
        logits = logits_of(self._candidate, pixels)
        self._comparison.update(expected, logits, labels)
        self._keep_not_finite(pixels, finite_images(expected) & ~finite_images(logits))
        if self._output == "single-label":
            classes = None if labels is None else labels.astype(np.int64)
            answers = Answers.of(expected, logits, classes)
            self._answers.append(answers)
            self._flips.add(pixels, answers)
        elif self._output == "multi-label":
            changes = LabelChanges.of(expected, logits)
            # Not one for each batch: it has a number for each label.
            self._label_changes = [LabelChanges.joined([*self._label_changes, changes])]
        elif self._output == "regression":
            truth = None if labels is None else labels.astype(np.float64).reshape(logits.shape)
            values = ValueAnswers(expected.astype(np.float64), logits.astype(np.float64), truth)
            self._values.append(values)
            self._differences.add(pixels, values)
        return logits

    def finish(self, source: str, skipped: tuple[str, ...]) -> Study:
        result = self._comparison.result(source, skipped)
        return Study(
            result,
            Answers.joined(self._answers) if self._answers else None,
            self._label_changes[0] if self._label_changes else None,
            self._flips.flips(),
            ValueAnswers.joined(self._values) if self._values else None,
            tuple(self._differences.differences()),
            tuple(self._not_finite),
        )

    def _keep_not_finite(self, pixels: NDArray[np.uint8], chosen: NDArray[np.bool_]) -> None:
        room = _KEPT_NOT_FINITE - len(self._not_finite)
        self._not_finite += [pixels[index].copy() for index in np.flatnonzero(chosen)[:room]]
