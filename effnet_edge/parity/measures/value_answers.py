"""What two models of a regression answered to each picture: by output, and where they differ most.

A few numbers a picture are kept, and the pixels of no more pictures than a report shows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity.measures.answers import thumbnail
from effnet_edge.parity.measures.values import Moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SHOWN_DIFFERENCES = 12


@dataclass(frozen=True)
class ValueAnswers:
    """Both models' values of every picture, float64 (N, outputs), and the true ones or None."""

    reference: NDArray[np.float64]
    candidate: NDArray[np.float64]
    truth: NDArray[np.float64] | None

    @classmethod
    def joined(cls, parts: Sequence[ValueAnswers]) -> ValueAnswers:
        """Those of one or more batches, in their order."""
        known = [part.truth for part in parts if part.truth is not None]
        return cls(
            np.concatenate([part.reference for part in parts]),
            np.concatenate([part.candidate for part in parts]),
            np.concatenate(known) if len(known) == len(parts) else None,
        )

    def by_output(self) -> list[dict[str, object]]:
        """For each output what a person looks at, in its own unit but for shares.

        "offset" is the mean of candidate − reference; "reference_mae" and "candidate_mae" are the
        mean absolute errors from the truth, None without it.
        """
        moments = Moments.of(self.reference, self.candidate)
        with np.errstate(invalid="ignore"):
            apart = self.candidate - self.reference
        errors = [self._mae(values) for values in (self.reference, self.candidate)]
        return [
            {
                "output": index,
                "mean": float(moments.means[0, index]),
                "spread": float(moments.spread[index]),
                "offset": float(apart[:, index].mean()),
                "mean_abs_error": float(np.abs(apart[:, index]).mean()),
                "max_abs_error": float(np.abs(apart[:, index]).max()),
                "nrmse": float(moments.nrmse[index]),
                "correlation": float(moments.correlation[index]),
                **{
                    f"{side}_mae": None if mae is None else float(mae[index])
                    for side, mae in zip(("reference", "candidate"), errors, strict=True)
                },
            }
            for index in range(apart.shape[1])
        ]

    def _mae(self, values: NDArray[np.float64]) -> NDArray[np.float64] | None:
        if self.truth is None:
            return None
        with np.errstate(invalid="ignore"):
            mae: NDArray[np.float64] = np.abs(values - self.truth).mean(0)
        return mae


@dataclass(frozen=True)
class Difference:
    """A picture to which the two give values far apart, and the output where they are farthest.

    `thumbnail` is a JPEG of the network's own input, in base64; `share` is the difference as a
    share of the reference's spread.
    """

    picture: int
    output: int
    reference: float
    candidate: float
    truth: float | None
    share: float
    thumbnail: str

    def to_dict(self) -> dict[str, object]:
        """JSON values but for NaN and infinities."""
        return asdict(self)


@dataclass(frozen=True)
class _Kept:
    picture: int
    reference: NDArray[np.float64]
    candidate: NDArray[np.float64]
    truth: NDArray[np.float64] | None
    pixels: NDArray[np.uint8]

    def shares(self, spread: NDArray[np.float64]) -> NDArray[np.float64]:
        """|candidate − reference| / spread by output; what is not finite is farthest apart."""
        with np.errstate(invalid="ignore", divide="ignore"):
            apart = np.abs(self.candidate - self.reference)
            return np.where(apart == 0, 0.0, np.nan_to_num(apart / spread, nan=np.inf))


class DifferenceCollector:
    """Keeps the pictures with the largest differences, at most `SHOWN_DIFFERENCES`.

    What is large is told by the spread of the pictures seen so far.
    """

    def __init__(self) -> None:
        self._kept: list[_Kept] = []
        self._moments: Moments | None = None

    def add(self, pixels: NDArray[np.uint8], answers: ValueAnswers) -> None:
        """A batch: uint8 (N, H, W, C), and the answers to it."""
        first = self._moments.images if self._moments else 0
        moments = Moments.of(answers.reference, answers.candidate)
        self._moments = self._moments + moments if self._moments else moments
        self._kept += [
            _Kept(
                first + index,
                answers.reference[index],
                answers.candidate[index],
                None if answers.truth is None else answers.truth[index],
                pixels[index],
            )
            for index in range(len(pixels))
        ]
        spread = self._moments.spread
        self._kept.sort(key=lambda kept: -kept.shares(spread).max())
        del self._kept[SHOWN_DIFFERENCES:]

    def differences(self) -> list[Difference]:
        """Those kept, the largest first; none where both give the same."""
        if self._moments is None:
            return []
        found = []
        for kept in self._kept:
            shares = kept.shares(self._moments.spread)
            at = int(np.argmax(shares))
            if shares[at] > 0:
                found.append(
                    Difference(
                        kept.picture,
                        at,
                        float(kept.reference[at]),
                        float(kept.candidate[at]),
                        None if kept.truth is None else float(kept.truth[at]),
                        float(shares[at]),
                        thumbnail(kept.pixels),
                    )
                )
        return found
