"""A few pictures of a set, of those that can be read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Batch, Outcome, Pictures


@dataclass(frozen=True)
class FewPictures:
    """A few of a set that were read: pixels, uint8 (n, H, W, C)."""

    pixels: NDArray[np.uint8]
    source: str

    labels = None

    def __len__(self) -> int:
        """How many there are; none where none of the set can be read."""
        return len(self.pixels)

    def subset(self, count: int) -> FewPictures:
        """The first ones."""
        return replace(self, pixels=self.pixels[:count])

    def batches(
        self,
        _preprocessing: Preprocessing,
        batch_size: int,
        _skipped: list[str] | None = None,
        _outcomes: list[Outcome] | None = None,
    ) -> Iterator[Batch]:
        """The pixels, as they were read, without labels."""
        for start in range(0, len(self), batch_size):
            yield self.pixels[start : start + batch_size], None


def readable(pictures: Pictures, count: int, preprocessing: Preprocessing) -> FewPictures:
    """So many of the set, drawn as `subset` does; more are drawn where some cannot be read."""
    drawn = count
    while True:
        few = pictures.subset(drawn)
        found, _ = next(iter(few.batches(preprocessing, count, [])), (None, None))
        if (found is not None and len(found) == count) or drawn >= len(pictures):
            break
        drawn *= 2
    if found is None:
        size = preprocessing.resolution
        found = np.zeros((0, size.height, size.width, preprocessing.channels), np.uint8)
    return FewPictures(found, pictures.source)
