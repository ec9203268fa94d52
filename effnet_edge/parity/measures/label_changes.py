"""Which labels a multi-label candidate gives otherwise than its reference, counted by label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity.measures.metrics import finite_images, given_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class LabelChanges:
    """Counts of pictures.

    Attributes:
        changed: with another set of labels.
        images: by label, to which the reference gives it, int64 (labels,).
        lost, gained: by label, to which only the reference, or only the candidate, gives it.
    """

    changed: int
    images: NDArray[np.int64]
    lost: NDArray[np.int64]
    gained: NDArray[np.int64]

    @classmethod
    def of(cls, reference: ArrayLike, candidate: ArrayLike) -> LabelChanges:
        """From two logits (N, labels); a label counts from a probability of 0.5 on.

        An answer that is not finite gives no label, and is another set than any.
        """
        finite = [finite_images(logits) for logits in (reference, candidate)]
        before = given_labels(reference) & finite[0][:, None]
        after = given_labels(candidate) & finite[1][:, None]
        changed = (before != after).any(axis=1) | ~finite[0] | ~finite[1]
        return cls(
            int(changed.sum()),
            before.sum(axis=0),
            (before & ~after).sum(axis=0),
            (~before & after).sum(axis=0),
        )

    @classmethod
    def joined(cls, parts: Sequence[LabelChanges]) -> LabelChanges:
        """The sums of one or more batches."""
        return cls(
            sum(part.changed for part in parts),
            np.sum([part.images for part in parts], axis=0),
            np.sum([part.lost for part in parts], axis=0),
            np.sum([part.gained for part in parts], axis=0),
        )

    def by_label(self) -> list[dict[str, int]]:
        """The labels with changes, those with most of them first."""
        changes = self.lost + self.gained
        order = np.argsort(-changes, kind="stable")
        return [
            {
                "class": int(index),
                "images": int(self.images[index]),
                "lost": int(self.lost[index]),
                "gained": int(self.gained[index]),
            }
            for index in order[: np.count_nonzero(changes)]
        ]
