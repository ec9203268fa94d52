"""Two models over one set of images: every parity measure, in memory that does not grow with it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.parity.measures import metrics
from effnet_edge.parity.measures.accuracy import AccuracyDrop, accuracy_drop
from effnet_edge.parity.measures.output_measures import OUTPUT_MEASURES

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from effnet_edge.outputs import OutputKind
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Pictures
    from effnet_edge.progress import Steps

"""Called after each batch with the images done so far, skipped ones too, and all there are."""


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


@dataclass(frozen=True)
class ParityResult:
    """How far `candidate` is from `reference`. The formulas are those of `parity.metrics`.

    Measures that the kind of output does not have are None.
    """

    reference: str
    candidate: str
    reference_precision: str
    """The precision that really ran, not the one asked for."""
    candidate_precision: str
    images: int
    classes: int
    max_abs_error: float
    """In logits."""
    mean_abs_error: float
    """In logits."""
    relative_error: float
    """Worst error as a share of the reference's range of logits over all images."""
    sqnr_db: float
    """Infinite for equal logits."""
    cosine: float
    """Of all logits as one vector, in [−1, 1]."""
    kl: float | None
    """Mean over the images, nats; of independent labels also over the labels."""
    top1_agreement: float | None
    """Share of images, 0..1."""
    top5_agreement: float | None
    """Mean overlap of the two best fives, 0..1."""
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
    label_set_agreement: float | None = None
    """Of independent labels: share of images with the same set of labels, 0..1."""
    label_agreement: float | None = None
    """Of independent labels: share of images and labels with the same decision, 0..1."""

    @property
    def agreement(self) -> float | None:
        """Share of images with the same answer, 0..1: best class or set of labels."""
        return self.label_set_agreement if self.output == "multi-label" else self.top1_agreement

    def to_dict(self) -> dict[str, object]:
        """JSON values only. A number that JSON cannot hold becomes null, and the object
        "not_finite" then maps its field to "inf", "-inf" or "nan" (so equal logits read
        `"sqnr_db": null, "not_finite": {"sqnr_db": "inf"}`).
        """
        fields = asdict(self)
        not_finite = {
            name: str(value)
            for name, value in fields.items()
            if isinstance(value, float) and not math.isfinite(value)
        }
        return {
            **fields,
            **dict.fromkeys(not_finite),
            "accuracy": self.accuracy.to_dict() if self.accuracy else None,
            "skipped": list(self.skipped),
            "not_finite": not_finite,
        }


class Comparison:
    """Accumulates batches of logits; only sums are kept.

    The split into batches does not matter: the result equals the measures of `parity.metrics`
    over all images at once, up to float64 rounding.
    """

    def __init__(
        self,
        reference: str,
        candidate: str,
        reference_precision: str,
        candidate_precision: str,
        output: OutputKind = "single-label",
    ) -> None:
        """Names and running precisions of the two, for the result and the errors."""
        self._output: OutputKind = output
        self._names = (reference, candidate)
        self._precisions = (reference_precision, candidate_precision)
        self._images = 0
        self._classes = 0
        self._max_error = 0.0
        self._reference_min = math.inf
        self._reference_max = -math.inf
        self._sums = _Sums()
        self._accuracy: AccuracyDrop | None = None

    @property
    def images(self) -> int:
        """Images accumulated so far."""
        return self._images

    def update(
        self, reference: ArrayLike, candidate: ArrayLike, labels: ArrayLike | None = None
    ) -> None:
        """Add a batch: two logits (N, classes), N ≥ 1, and N class indices or None.

        Raises UsageError where the two have different class counts, a label is no class of theirs
        or the output has no accuracy, ValueError where the batches differ in length or only some
        have labels.
        """
        ref, cand = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
        self._check(ref, cand, labels)
        if labels is not None:
            if self._output != "single-label":
                raise UsageError(
                    f"labels do not go with a {self._output} model: only for one class a picture "
                    "accuracy is measured; leave the labels out"
                )
            drop = accuracy_drop(ref, cand, labels)
            self._accuracy = self._accuracy + drop if self._accuracy else drop
        # np.maximum and np.minimum, unlike max and min, let a NaN through.
        self._max_error = float(np.maximum(self._max_error, metrics.max_abs_error(ref, cand)))
        self._reference_min = float(np.minimum(self._reference_min, ref.min()))
        self._reference_max = float(np.maximum(self._reference_max, ref.max()))
        self._sums = self._sums + _Sums.of(ref, cand, self._output)
        self._images += len(ref)
        self._classes = ref.shape[1]

    def result(self, image_source: str = "", skipped: tuple[str, ...] = ()) -> ParityResult:
        """The measures over all batches so far; raises UsageError where there were none."""
        if not self._images:
            raise UsageError(_no_images(image_source, skipped))
        sums, images = self._sums, self._images
        measures = OUTPUT_MEASURES[self._output]
        agreement = sums.agreement / images if measures.agreement else None
        overlap = sums.overlap / images if measures.overlap else None
        one, many = self._output == "single-label", self._output == "multi-label"
        return ParityResult(
            reference=self._names[0],
            candidate=self._names[1],
            reference_precision=self._precisions[0],
            candidate_precision=self._precisions[1],
            images=images,
            classes=self._classes,
            max_abs_error=self._max_error,
            mean_abs_error=sums.abs_error / (images * self._classes),
            relative_error=metrics.error_per_range(
                self._max_error, self._reference_max - self._reference_min
            ),
            sqnr_db=metrics.decibels(sums.reference_energy, sums.noise_energy),
            cosine=metrics.cosine_of_sums(
                sums.product, sums.reference_energy, sums.candidate_energy
            ),
            kl=sums.kl / images if measures.kl else None,
            top1_agreement=agreement if one else None,
            top5_agreement=overlap if one else None,
            reference_nonfinite=sums.reference_nonfinite,
            candidate_nonfinite=sums.candidate_nonfinite,
            accuracy=self._accuracy,
            image_source=image_source,
            skipped=skipped,
            output=self._output,
            label_set_agreement=agreement if many else None,
            label_agreement=overlap if many else None,
        )

    def _check(self, ref: metrics.Floats, cand: metrics.Floats, labels: ArrayLike | None) -> None:
        if ref.ndim != 2 or cand.ndim != 2 or len(ref) != len(cand) or not len(ref):
            raise ValueError(
                f"logits must be two (N, classes), N ≥ 1, not {ref.shape} and {cand.shape}"
            )
        if ref.shape[1] != cand.shape[1]:
            raise UsageError(
                f"{self._names[0]} has {ref.shape[1]} classes but {self._names[1]} has "
                f"{cand.shape[1]}: compare two models of the same classes"
            )
        if self._images and (labels is None) != (self._accuracy is None):
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
    if logits.ndim != 2 or len(logits) != len(pixels):
        raise BackendError(
            f"{model.name} answered {len(pixels)} images with an array of shape {logits.shape}, "
            f"not ({len(pixels)}, classes): it is no image classifier, or its batch size is fixed"
        )
    return logits


def _no_images(image_source: str, skipped: tuple[str, ...]) -> str:
    where = f" in {image_source}" if image_source else ""
    if skipped:
        return f"none of the {len(skipped)} images{where} can be read: {skipped[0]}"
    return f"there are no images{where} to compare on: name a set that has some"


@dataclass(frozen=True)
class _Sums:
    """What adds up over batches."""

    abs_error: float = 0.0
    reference_energy: float = 0.0
    candidate_energy: float = 0.0
    noise_energy: float = 0.0
    product: float = 0.0
    kl: float = 0.0
    agreement: int = 0
    overlap: float = 0.0
    reference_nonfinite: int = 0
    candidate_nonfinite: int = 0

    @classmethod
    def of(cls, ref: metrics.Floats, cand: metrics.Floats, output: OutputKind) -> _Sums:
        measures = OUTPUT_MEASURES[output]
        error = metrics.difference(ref, cand)
        with np.errstate(invalid="ignore"):
            product = float(np.sum(ref * cand))
        return cls(
            abs_error=float(np.sum(np.abs(error))),
            reference_energy=float(np.sum(ref * ref)),
            candidate_energy=float(np.sum(cand * cand)),
            noise_energy=float(np.sum(error * error)),
            product=product,
            kl=float(np.sum(measures.kl(ref, cand))) if measures.kl else 0.0,
            agreement=int(np.sum(measures.agreement(ref, cand))) if measures.agreement else 0,
            overlap=float(np.sum(measures.overlap(ref, cand))) if measures.overlap else 0.0,
            reference_nonfinite=int(np.sum(~metrics.finite_images(ref))),
            candidate_nonfinite=int(np.sum(~metrics.finite_images(cand))),
        )

    def __add__(self, other: _Sums) -> _Sums:
        theirs = asdict(other)
        return _Sums(**{name: value + theirs[name] for name, value in asdict(self).items()})
