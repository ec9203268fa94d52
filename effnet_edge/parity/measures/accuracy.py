"""Accuracy that a candidate loses on labelled images, with the uncertainty of the loss.

Both models see the same images, so only those count on which exactly one of the two is right: the
interval is for *paired* proportions and far tighter than two separate accuracies would allow.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import UsageError
from effnet_edge.parity.measures.formula import Z95, Loss
from effnet_edge.parity.measures.metrics import Bools, finite_images, given_labels, top_k

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def paired_drop_interval(lost: float, gained: float, images: float) -> tuple[float, float]:
    """95 % interval of the drop (lost − gained) / images, as shares clipped to [−1, 1].

    The adjusted Wald interval of D. G. Bonett and R. M. Price, "Adjusted Wald Confidence Interval
    for a Difference of Binomial Proportions Based on Paired Data", Journal of Educational and
    Behavioral Statistics 37 (2012) 479–488: with the Laplace estimates p = (lost + 1)/(images + 2)
    and q = (gained + 1)/(images + 2), it is p − q ± z·√((p + q − (p − q)²)/(images + 2)). It keeps
    its coverage, and a width above zero, for few images and for no discordant ones.

    `lost` images are right in the reference only, `gained` ones in the candidate only; expected
    counts need not be whole numbers.
    """
    p, q = (lost + 1) / (images + 2), (gained + 1) / (images + 2)
    margin = Z95 * math.sqrt((p + q - (p - q) ** 2) / (images + 2))
    return max(p - q - margin, -1.0), min(p - q + margin, 1.0)


def images_to_stay_within(lost: int, gained: int, images: int, limit: float) -> int | None:
    """How many images it takes until the whole interval of the drop lies within a limit.

    Supposes that as many in a hundred are lost and gained as so far. None where the drop itself is
    not below the limit (a share, 0..1): more images would not help then.
    """
    if (lost - gained) / images >= limit:
        return None

    def holds(count: int) -> bool:
        scale = count / images
        return paired_drop_interval(lost * scale, gained * scale, count)[1] <= limit

    enough = 1
    while not holds(enough):
        enough *= 2
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if holds(middle) else (middle, enough)
    return enough


@dataclass(frozen=True)
class Drop:
    """How often two models are right about the same images, as four counts that sum to all."""

    both_right: int
    lost: int
    """Right in the reference, wrong in the candidate."""
    gained: int
    """Wrong in the reference, right in the candidate."""
    both_wrong: int

    @property
    def images(self) -> int:
        """All labelled images."""
        return self.both_right + self.lost + self.gained + self.both_wrong

    @property
    def reference(self) -> float:
        """The reference's accuracy in percent."""
        return 100 * (self.both_right + self.lost) / self.images

    @property
    def candidate(self) -> float:
        """The candidate's accuracy in percent."""
        return 100 * (self.both_right + self.gained) / self.images

    @property
    def points(self) -> float:
        """The drop in percentage points; negative where the candidate is better."""
        return 100 * (self.lost - self.gained) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The drop's 95 % interval in percentage points (see `paired_drop_interval`)."""
        low, high = paired_drop_interval(self.lost, self.gained, self.images)
        return 100 * low, 100 * high

    def to_dict(self) -> dict[str, object]:
        """Everything above as JSON values: counts, percent and points."""
        return {
            **asdict(self),
            "images": self.images,
            "reference_percent": self.reference,
            "candidate_percent": self.candidate,
            "drop_points": self.points,
            "drop_interval_95_points": list(self.interval),
        }

    def __add__(self, other: Drop) -> Drop:
        return Drop(
            self.both_right + other.both_right,
            self.lost + other.lost,
            self.gained + other.gained,
            self.both_wrong + other.both_wrong,
        )


@dataclass(frozen=True)
class AccuracyDrop:
    """Top-1 and top-5 accuracy of reference and candidate on the same labelled images.

    Of a yes or no, `top1` is the accuracy, and `top5` None.
    """

    top1: Drop
    top5: Drop | None

    def losses(self) -> dict[str, Loss]:
        """The drops in points, by the key of the measure."""
        drops = {"top1_drop": self.top1, "top5_drop": self.top5}
        return {key: Loss(drop.points, drop.interval) for key, drop in drops.items() if drop}

    def to_dict(self) -> dict[str, object]:
        """JSON values, one object for each of the two that there is."""
        drops = {"top1": self.top1, "top5": self.top5}
        return {key: drop.to_dict() for key, drop in drops.items() if drop}

    def __add__(self, other: AccuracyDrop) -> AccuracyDrop:
        top5 = self.top5 + other.top5 if self.top5 and other.top5 else None
        return AccuracyDrop(self.top1 + other.top1, top5)


def binary_drop(reference: ArrayLike, candidate: ArrayLike, labels: ArrayLike) -> AccuracyDrop:
    """Count right and wrong decisions: two logits (N, 1), and N labels, 0 (no) or 1 (yes).

    Raises UsageError for another label.
    """
    truth = np.asarray(labels, dtype=np.int64)
    _check_labels(truth, classes=2)
    right = [
        (given_labels(logits)[:, 0] == truth) & finite_images(logits)
        for logits in (reference, candidate)
    ]
    return AccuracyDrop(_drop(*right), None)


def accuracy_drop(reference: ArrayLike, candidate: ArrayLike, labels: ArrayLike) -> AccuracyDrop:
    """Count right and wrong answers: two logits (N, classes) and N class indices.

    Of equal logits the lower class index wins. An image with a logit that is not finite is wrong.
    Raises UsageError for a label that is no class of the model.
    """
    top1, top5 = (
        _drop(correct_in_top_k(reference, labels, k), correct_in_top_k(candidate, labels, k))
        for k in (1, 5)
    )
    return AccuracyDrop(top1, top5)


def correct_in_top_k(logits: ArrayLike, labels: ArrayLike, k: int) -> Bools:
    """Whether the label is among the k best classes of each image: (N, classes), (N,) → (N,)."""
    values, truth = np.asarray(logits), np.asarray(labels, dtype=np.int64)
    if truth.shape != values.shape[:1]:
        raise ValueError(f"{values.shape[0]} images need as many labels, not {truth.shape}")
    _check_labels(truth, classes=values.shape[1])
    correct: Bools = (top_k(values, k) == truth[:, None]).any(axis=1)
    return correct & finite_images(values)


def _check_labels(labels: NDArray[np.int64], classes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise UsageError(
            f"label {wrong[0]} is outside the model's {classes} classes (0 to {classes - 1}): "
            "label the pictures with the model's own classes"
        )


def _drop(reference: Bools, candidate: Bools) -> Drop:
    return Drop(
        both_right=int(np.sum(reference & candidate)),
        lost=int(np.sum(reference & ~candidate)),
        gained=int(np.sum(~reference & candidate)),
        both_wrong=int(np.sum(~reference & ~candidate)),
    )
