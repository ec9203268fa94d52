"""What two models answered to each picture: flipped ones, classes, confidence, calibration.

A few numbers a picture are kept, and the pixels of no more pictures than a report shows.
"""

from __future__ import annotations

import base64
import io
import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from effnet_edge.parity.measures.metrics import finite_images, softmax, top_k
from effnet_edge.parity.measures.statistics import expected_calibration_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SHOWN_FLIPS = 24
_THUMBNAIL_SIDE = 128
# Where the reference is unsure anyway, a changed answer means little.
CONFIDENCE_LIMITS = (0.0, 0.5, 0.8, 0.95, 1.0)

NO_CLASS = -1
"""The best class of an answer that is not finite: it is right about nothing, and none like it."""


@dataclass(frozen=True)
class Answers:
    """Both models' best class of every picture, arrays (N,).

    Attributes:
        reference, candidate: class indices; `NO_CLASS` for an answer with a NaN or an infinity.
        reference_confidence, candidate_confidence: the softmax shares of these, 0..1.
        labels: class indices, or None.
    """

    reference: NDArray[np.int64]
    candidate: NDArray[np.int64]
    reference_confidence: NDArray[np.float64]
    candidate_confidence: NDArray[np.float64]
    labels: NDArray[np.int64] | None

    @classmethod
    def of(
        cls,
        reference: NDArray[np.float32],
        candidate: NDArray[np.float32],
        labels: NDArray[np.int64] | None,
    ) -> Answers:
        """From two logits (N, classes)."""
        best, confidence = _best(reference)
        other_best, other_confidence = _best(candidate)
        return cls(best, other_best, confidence, other_confidence, labels)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Those of several batches, in their order."""
        return cls(
            np.concatenate([part.reference for part in parts]),
            np.concatenate([part.candidate for part in parts]),
            np.concatenate([part.reference_confidence for part in parts]),
            np.concatenate([part.candidate_confidence for part in parts]),
            None
            if any(part.labels is None for part in parts)
            else np.concatenate([part.labels for part in parts if part.labels is not None]),
        )

    @property
    def truth(self) -> NDArray[np.int64]:
        """The labels; without any, the reference's answers."""
        return self.reference if self.labels is None else self.labels

    @property
    def agrees(self) -> NDArray[np.bool_]:
        """Whether both have the same best class."""
        return np.asarray((self.reference == self.candidate) & (self.reference != NO_CLASS))

    def calibration_errors(self) -> dict[str, float]:
        """Expected calibration error of each model, 0..1, against `truth`.

        Without labels only the candidate has one: the reference always agrees with itself.
        """
        right = self.agrees if self.labels is None else self.candidate == self.labels
        errors = {"candidate": expected_calibration_error(self.candidate_confidence, right)}
        if self.labels is not None:
            errors["reference"] = expected_calibration_error(
                self.reference_confidence, self.reference == self.labels
            )
        return errors

    def by_confidence(self) -> list[dict[str, object]]:
        """For each range of the reference's confidence: pictures, and agreement and accuracies."""
        rows = []
        for low, high in itertools.pairwise(CONFIDENCE_LIMITS):
            last = high == CONFIDENCE_LIMITS[-1]
            sure = self.reference_confidence
            chosen = (sure >= low) & ((sure <= high) if last else (sure < high))
            rows.append({"from": low, "to": high, **self._shares(chosen)})
        return rows

    def by_class(self) -> list[dict[str, int]]:
        """For each labelled class that one model gets wrong and the other right: counts.

        The classes that lose most come first. Empty without labels.
        """
        if self.labels is None:
            return []
        before, after = self.reference == self.labels, self.candidate == self.labels
        rows: list[dict[str, int]] = []
        for index in np.unique(self.labels[before != after]):
            own = self.labels == index
            rows.append(
                {
                    "class": int(index),
                    "images": int(own.sum()),
                    "lost": int((own & before & ~after).sum()),
                    "gained": int((own & ~before & after).sum()),
                }
            )
        return sorted(rows, key=lambda row: row["gained"] - row["lost"])

    def flipped(self) -> NDArray[np.intp]:
        """The pictures with another best class, those first that the reference was surest of."""
        changed = np.flatnonzero(~self.agrees)
        return changed[np.argsort(-self.reference_confidence[changed], kind="stable")]

    def _shares(self, chosen: NDArray[np.bool_]) -> dict[str, object]:
        images = int(chosen.sum())
        shares: dict[str, object] = {"images": images}
        if images:
            shares["agreement"] = float(np.mean(self.agrees[chosen]))
            if self.labels is not None:
                shares["reference_right"] = float(np.mean((self.reference == self.labels)[chosen]))
                shares["candidate_right"] = float(np.mean((self.candidate == self.labels)[chosen]))
        return shares


@dataclass(frozen=True)
class Flip:
    """A picture with another best class. Classes are indices, confidences softmax shares.

    A class is None where the answer is not finite.

    `thumbnail` is a JPEG of the network's own input, in base64.
    """

    picture: int
    label: int | None
    reference: int | None
    reference_confidence: float
    candidate: int | None
    candidate_confidence: float
    thumbnail: str

    def to_dict(self) -> dict[str, object]:
        """JSON values only."""
        return asdict(self)


class FlipCollector:
    """Keeps the flipped pictures that the reference was surest of, at most `SHOWN_FLIPS`."""

    def __init__(self) -> None:
        self._flips: list[Flip] = []
        self._pictures = 0

    def add(self, pixels: NDArray[np.uint8], answers: Answers) -> None:
        """A batch: uint8 (N, H, W, 3), and the answers to it."""
        for index in answers.flipped()[:SHOWN_FLIPS]:
            self._flips.append(
                Flip(
                    picture=self._pictures + int(index),
                    label=None if answers.labels is None else int(answers.labels[index]),
                    reference=_class(answers.reference[index]),
                    reference_confidence=float(answers.reference_confidence[index]),
                    candidate=_class(answers.candidate[index]),
                    candidate_confidence=float(answers.candidate_confidence[index]),
                    thumbnail=thumbnail(pixels[index]),
                )
            )
        self._pictures += len(pixels)
        self._flips.sort(key=lambda flip: -flip.reference_confidence)
        del self._flips[SHOWN_FLIPS:]

    def flips(self) -> list[Flip]:
        """Those kept, the surest first."""
        return list(self._flips)


def _best(logits: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    finite = finite_images(logits)
    best = top_k(logits, 1)[:, 0].astype(np.int64)
    shares = softmax(logits)[np.arange(len(best)), best]
    return np.where(finite, best, NO_CLASS), np.where(finite, shares, 0.0)


def _class(index: np.int64) -> int | None:
    return None if index == NO_CLASS else int(index)


def thumbnail(pixels: NDArray[np.uint8]) -> str:
    """A JPEG in base64; of other channels than RGB the first three that there are, or the first."""
    channels = pixels.shape[2]
    picture = Image.fromarray(pixels[..., :3] if channels >= 3 else pixels[..., 0])
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
