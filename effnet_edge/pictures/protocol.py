"""What every set of pictures can do: files of a folder, rows of a CSV file, embedded photos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet_edge.pictures.image import Preprocessing

Labels: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float64]
"""Class indices, int64 (n,), or true values of a regression, float64 (n, values)."""

Batch: TypeAlias = tuple[npt.NDArray[np.uint8], Labels | None]
"""Pixels, uint8 (n, H, W, C), and labels, or None for an unlabelled set."""


Outcome: TypeAlias = tuple[str, str | None]
"""A picture's name, and why it cannot be read, or None where it was."""


class Pictures(Protocol):
    """Pictures in a fixed order."""

    @property
    def source(self) -> str:
        """Name the set as a person would."""

    @property
    def labels(self) -> tuple[int, ...] | None:
        """Give the class index of every picture, or None where there is none or it is not known."""

    def __len__(self) -> int:
        """Count the pictures, readable or not."""

    def subset(self, count: int) -> Pictures:
        """Choose `count` of the pictures, always the same ones; all where there are no more."""

    def batches(
        self,
        preprocessing: Preprocessing,
        batch_size: int,
        skipped: list[str] | None = None,
        outcomes: list[Outcome] | None = None,
    ) -> Iterator[Batch]:
        """Read the pictures as the network takes them, `batch_size` at a time, the last fewer.

        Args:
            skipped: takes one line for each picture that cannot be read, and the rest go on; where
                it is None, such a picture raises ImageError.
            outcomes: takes what came of each picture, in order, those of a batch before it is
                given.
        """
