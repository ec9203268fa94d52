"""Two models over one set of images: every parity measure, in memory that does not grow with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.outputs import check_one_output
from effnet_edge.parity.measures.accuracy import AccuracyDrop, accuracy_drop, binary_drop
from effnet_edge.parity.measures.formula import Formula
from effnet_edge.parity.measures.metrics import Floats, finite_images
from effnet_edge.parity.measures.probabilities import of_probabilities
from effnet_edge.parity.measures.result import ParityResult
from effnet_edge.parity.measures.table import measures_of
from effnet_edge.parity.measures.values import ConstantOutputs, TruthErrors

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.measures.formula import Partial
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Pictures
    from effnet_edge.progress import Steps


# By how much a reference's answers to one picture differ from one place in a batch to another, as a
# share of their magnitude: a few roundings of float32.
_ROUNDING = 1e-6
# Of the range of logits: answers that differ by less are the same to 60 dB, as to `OWN_ANSWERS_DB`.
_SAME_ANSWERS = 1e-3


class Classifier(Protocol):
    """Anything that classifies images: an engine, an ONNX model, the PyTorch network."""

    @property
    def name(self) -> str:
        """What a person calls it, e.g. "b0-openvino-int8"."""

    @property
    def execution_precision(self) -> str:
        """The precision that really runs, e.g. "fp32", "bf16", "int8"."""

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """uint8 images (N, H, W, C) → float32 logits or features (N, classes)."""


class Comparison:
    """Accumulates batches of logits; only sums and maxima are kept.

    The split into batches does not matter: the result equals the formulas of `measures.metrics`
    over all images at once, up to float64 rounding.
    """

    def __init__(
        self,
        reference: str,
        candidate: str,
        reference_precision: str,
        candidate_precision: str,
        output: OutputKind = "single-label",
        *,
        as_probabilities: bool = False,
    ) -> None:
        """Names and running precisions of the two, for the result and the errors.

        Args:
            as_probabilities: take the measures of the numbers themselves of the probabilities.
        """
        self._output: OutputKind = output
        self._as_probabilities = as_probabilities
        self._names = (reference, candidate)
        self._precisions = (reference_precision, candidate_precision)
        self._images = 0
        self._classes = 0
        self._formulas = {
            measure.key: of_probabilities(formula, output)
            if as_probabilities and measure.of_probabilities
            else formula
            for measure in measures_of(output)
            if isinstance(formula := measure.formula_of(output), Formula)
        }
        self._partials: dict[str, Partial] = {}
        self._nonfinite = [0, 0]
        self._accuracy: AccuracyDrop | None = None
        self._truth: TruthErrors | None = None
        is_exact = output == "regression"  # whose outputs have units of their own
        self._constants = (
            ConstantOutputs() if is_exact else ConstantOutputs(_ROUNDING, _SAME_ANSWERS),
            ConstantOutputs(),
        )

    @property
    def images(self) -> int:
        """Images accumulated so far."""
        return self._images

    def update(
        self, reference: ArrayLike, candidate: ArrayLike, labels: ArrayLike | None = None
    ) -> None:
        """Add a batch: two logits (N, classes), N ≥ 1, and N class indices or None.

        Of a yes or no (one output, multi-label) the labels are 0 or 1, of a regression the true
        values, (N, outputs).

        Raises UsageError where the two have different class counts, a label is no class of theirs
        or the output has no accuracy, ValueError where the batches differ in length or only some
        have labels.
        """
        ref, cand = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
        self._check(ref, cand, labels)
        if labels is not None:
            self._add_labelled(ref, cand, labels)
        for constants, outputs in zip(self._constants, (ref, cand), strict=True):
            constants.add(outputs)
        for key, formula in self._formulas.items():
            self._partials[key] = formula.joined(
                self._partials.get(key), formula.partial(ref, cand)
            )
        for side, logits in enumerate((ref, cand)):
            self._nonfinite[side] += int((~finite_images(logits)).sum())
        self._images += len(ref)
        self._classes = ref.shape[1]

    def _add_labelled(self, ref: Floats, cand: Floats, labels: ArrayLike) -> None:
        if self._output == "regression":
            errors = TruthErrors.of(ref, cand, labels)
            self._truth = self._truth + errors if self._truth else errors
            return
        is_binary = self._output == "multi-label" and ref.shape[1] == 1
        if self._output != "single-label" and not is_binary:
            raise UsageError(
                f"labels do not go with a {self._output} model: only for one class a picture "
                "accuracy is measured; leave the labels out"
            )
        drop = (binary_drop if is_binary else accuracy_drop)(ref, cand, labels)
        self._accuracy = self._accuracy + drop if self._accuracy else drop

    def result(self, image_source: str = "", skipped: tuple[str, ...] = ()) -> ParityResult:
        """The measures over all batches so far; raises UsageError where there were none."""
        if not self._images:
            raise UsageError(_no_images(image_source, skipped))
        return ParityResult(
            reference=self._names[0],
            candidate=self._names[1],
            reference_precision=self._precisions[0],
            candidate_precision=self._precisions[1],
            images=self._images,
            classes=self._classes,
            values={
                key: formula.value(*self._partials[key]) for key, formula in self._formulas.items()
            },
            reference_nonfinite=self._nonfinite[0],
            candidate_nonfinite=self._nonfinite[1],
            accuracy=self._accuracy,
            image_source=image_source,
            skipped=skipped,
            output=self._output,
            as_probabilities=self._as_probabilities,
            truth=self._truth,
            reference_constant=self._constants[0].found(),
            candidate_constant=self._constants[1].found(),
        )

    def _check(self, ref: Floats, cand: Floats, labels: ArrayLike | None) -> None:
        if ref.ndim != 2 or cand.ndim != 2 or len(ref) != len(cand) or not len(ref):
            raise ValueError(
                f"logits must be two (N, classes), N ≥ 1, not {ref.shape} and {cand.shape}"
            )
        if ref.shape[1] != cand.shape[1]:
            raise UsageError(
                f"{self._names[0]} has {ref.shape[1]} classes but {self._names[1]} has "
                f"{cand.shape[1]}: compare two models of the same classes"
            )
        check_one_output(self._output, ref.shape[1])
        if self._images and (labels is None) != (self._accuracy is None and self._truth is None):
            raise ValueError("give labels with every batch or with none")


def compare(
    reference: Classifier,
    candidate: Classifier,
    image_set: Pictures,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 8,
    output: OutputKind = "single-label",
    progress: Steps | None = None,
) -> ParityResult:
    """Run both over the same pixels of every image in the set, `batch_size` images at a time.

    Images that cannot be read are left out and listed in the result. Raises UsageError where none
    can be read, the class counts differ, or a label is no class of the two; BackendError where a
    model does not answer with one row of logits an image.
    """
    comparison = Comparison(
        reference.name,
        candidate.name,
        reference.execution_precision,
        candidate.execution_precision,
        output,
    )
    skipped: list[str] = []
    total = len(image_set)
    for pixels, labels in image_set.batches(preprocessing, batch_size, skipped):
        comparison.update(logits_of(reference, pixels), logits_of(candidate, pixels), labels)
        if progress:
            progress(comparison.images + len(skipped), total)
    return comparison.result(image_set.source, tuple(skipped))


def logits_of(model: Classifier, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One row of logits for each image; raises BackendError where the model gives anything else."""
    logits = model.infer(pixels)
    if logits.ndim == 1:  # of one output, whose axis some exports leave out
        logits = logits[:, None]
    if logits.ndim != 2 or len(logits) != len(pixels):
        raise BackendError(
            f"{model.name} answered {len(pixels)} images with an array of shape {logits.shape}, "
            f"not ({len(pixels)}, classes): it is no image classifier, or its batch size is fixed"
        )
    return logits


def _no_images(image_source: str, skipped: tuple[str, ...]) -> str:
    where = f" in {image_source}" if image_source else ""
    if skipped:
        return f"none of the {len(skipped)} pictures{where} can be read: {skipped[0]}"
    return f"there are no pictures{where} to compare on: name a set that has some"
