"""The pictures of one calibration: read once, checked, counted and hashed."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from effnet_calibration.errors import CalibrationError, CalibrationWarning
from effnet_calibration.quantization import PixelNormalization
from effnet_calibration.table import CalibrationSet
from effnet_edge.pictures.image import normalize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from effnet_edge.pictures.image import Pixels, Preprocessing
    from effnet_edge.pictures.protocol import Pictures

DEFAULT_IMAGES = 200
FEW_IMAGES = 32
UNREADABLE_SHARE = 0.1


@dataclass
class CalibrationPictures:
    """A set as the calibration sees it. Iterating it checks and counts what passes."""

    pictures: Pictures
    preprocessing: Preprocessing
    batch_size: int = 1
    skipped: list[str] = field(default_factory=list)
    seen: int = 0

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()
        self._plain = 0

    def batches(self) -> Iterator[Tensor]:
        """Normalized pictures, float32 (n, 3, H, W).

        Raises:
            CalibrationError: there are none, more than a tenth cannot be read, or all are of one
                colour each. The last two are known, and raised, when the last batch has passed.
        """
        if len(self.pictures) == 0:
            raise CalibrationError(f"{self.pictures.source} has no pictures to calibrate on")
        for pixels, _ in self.pictures.batches(self.preprocessing, self.batch_size, self.skipped):
            self._digest.update(np.ascontiguousarray(pixels).tobytes())
            self.seen += len(pixels)
            self._plain += _plain(pixels)
            yield torch.from_numpy(normalize(pixels, self.preprocessing))
        self._check()

    def record(self) -> CalibrationSet:
        """What the table says of the set, once all batches have passed."""
        return CalibrationSet(
            self.pictures.source,
            self.seen,
            self._digest.hexdigest(),
            tuple(self.skipped),
            PixelNormalization.of(self.preprocessing),
        )

    def _check(self) -> None:
        source, total = self.pictures.source, len(self.pictures)
        if self.skipped:
            unread = (
                f"{len(self.skipped)} of the {total} pictures in {source} cannot be read, "
                f"the first: {self.skipped[0]}"
            )
            if len(self.skipped) > UNREADABLE_SHARE * total:
                raise CalibrationError(unread)
            warnings.warn(f"left out: {unread}", CalibrationWarning, stacklevel=2)
        if self._plain == self.seen:
            raise CalibrationError(
                f"every picture in {source} is of a single colour: calibrate on photos"
            )
        if self.seen < FEW_IMAGES:
            warnings.warn(
                f"calibrating on {self.seen} pictures: with fewer than {FEW_IMAGES} the ranges "
                f"are guesses; {DEFAULT_IMAGES} are enough",
                CalibrationWarning,
                stacklevel=2,
            )


def _plain(pixels: Pixels) -> int:
    """How many pictures of a batch have one colour only."""
    flat = pixels.reshape(len(pixels), -1, pixels.shape[-1])
    return int((flat == flat[:, :1]).all(axis=(1, 2)).sum())
