"""The pictures that are named on a command line: files, folders, patterns, archives, CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from effnet_edge.pictures.shards import ShardMember

Named: TypeAlias = "str | Path | ShardMember"


def named_pictures(arguments: Iterable[str], channels: int) -> dict[str, Named]:
    """Every picture by its name, in the order in which they are named; one named twice once.

    Raises:
        UsageError: a folder, pattern or archive has no pictures, or cannot be read.
    """
    pictures: dict[str, Named] = {}
    for argument in arguments:
        for picture in _named_by(argument, channels):
            pictures.setdefault(str(picture), picture)
    return pictures


def _named_by(argument: str, channels: int) -> Iterable[Named]:
    from effnet_edge.pictures.sets import ImageSet
    from effnet_edge.pictures.shards import SHARD
    from effnet_edge.pictures.sources import holds_several, matching_paths, picture_paths

    several = holds_several(argument)
    files = [Path(argument)]
    if several and not files[0].is_dir():
        files = matching_paths(argument)
    shards = [file for file in files if file.suffix.lower() == SHARD]
    if shards and len(shards) == len(files):
        return ImageSet.from_shards(shards, channels=channels).paths
    if several:
        return picture_paths(argument, channels)
    if files[0].suffix.lower() == ".csv":
        return ImageSet.from_csv(files[0], labelled=False).paths
    return [argument]
