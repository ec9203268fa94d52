"""Sets of pictures of which some cannot be read, as long as others can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Batch, Pictures


def read_batches(
    pictures: Pictures, preprocessing: Preprocessing, batch_size: int, skipped: list[str]
) -> Iterator[Batch]:
    """The batches of those that can be read; `skipped` takes a line for each of the others.

    Raises:
        UsageError: none can be read.
    """
    batches = 0
    for batch in pictures.batches(preprocessing, batch_size, skipped):
        batches += 1
        yield batch
    if not batches:
        reason = f": {skipped[0]}" if skipped else ""
        raise UsageError(
            f"none of the {len(pictures)} pictures in {pictures.source} can be read{reason}"
        )


def told_source(source: str, skipped: Sequence[str]) -> str:
    """Name a set as a person would, with how many of it were left out."""
    return source + (f" ({len(skipped)} of them cannot be read)" if skipped else "")
