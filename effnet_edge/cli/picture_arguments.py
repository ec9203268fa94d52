"""What is named on a command line: pictures, folders, patterns, archives, CSV files, videos."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from effnet_edge.pictures.shards import ShardMember
    from effnet_edge.pictures.video import Video

Named: TypeAlias = "str | Path | ShardMember | Video"

_LIKE_A_CAMERA = re.compile(r"[0-9]+|/dev/video[0-9]+|(?:webcam|camera):?", re.IGNORECASE)
_LIKE_AN_ADDRESS = re.compile(r"[a-z]+://.*", re.IGNORECASE)


def named_pictures(arguments: Iterable[str], channels: int) -> dict[str, Named]:
    """Every picture and video by its name, in the order in which they are named, each once.

    Raises:
        UsageError: a folder, pattern or archive has no pictures, or cannot be read; or there is no
            such video or camera.
        ImageError: a video cannot be read.
    """
    pictures: dict[str, Named] = {}
    for argument in arguments:
        for picture in _named_by(argument, channels):
            pictures.setdefault(str(picture), picture)
    return pictures


def _named_by(argument: str, channels: int) -> Sequence[Named]:
    from effnet_edge.pictures.sets import ImageSet
    from effnet_edge.pictures.shards import is_shard
    from effnet_edge.pictures.sources import holds_several, matching_paths, picture_paths
    from effnet_edge.pictures.video import Video

    several = holds_several(argument)
    files = [Path(argument)]
    if several and not files[0].is_dir():
        files = matching_paths(argument)
    shards = [file for file in files if is_shard(file)]
    if shards and len(shards) == len(files):
        return ImageSet.from_shards(shards, channels=channels).paths
    if several and not files and Video.named(argument):
        raise UsageError(f"{argument!r} matches no videos")
    videos = {file: video for file in files if (video := Video.named(file))}
    if videos and not files[0].is_dir():
        return _with_pictures(files, videos, channels)
    if several:
        return picture_paths(argument, channels)
    if files[0].suffix.lower() == ".csv":
        return ImageSet.from_csv(files[0], labelled=False).paths
    _check_is_path(argument)
    return [argument]


def _with_pictures(files: list[Path], videos: dict[Path, Video], channels: int) -> list[Named]:
    """The videos of a pattern, or a single one, and the pictures between them."""
    from effnet_edge.pictures.image import picture_extensions

    for video in videos.values():
        video.check()
    extensions = picture_extensions(channels)
    kept = [each for each in files if each in videos or each.suffix.lower() in extensions]
    return [videos.get(each, each) for each in kept]


def _check_is_path(argument: str) -> None:
    if _LIKE_A_CAMERA.fullmatch(argument) and not Path(argument).is_file():
        camera = argument if re.search("[0-9]$", argument) else "0"
        raise UsageError(f"{argument!r} does not exist; a camera is given as camera:{camera}")
    if _LIKE_AN_ADDRESS.fullmatch(argument) and not os.path.lexists(argument):
        raise UsageError(f"{argument!r} is an address, and nothing is downloaded: give a file")
