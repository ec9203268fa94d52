"""Which pictures of a set are one and the same: the same bytes, under whatever names."""

from __future__ import annotations

import hashlib
import stat
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from effnet_edge.pictures.shards import ShardMember

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    Picture: TypeAlias = Path | ShardMember

_BEGINNING_BYTES = 1 << 12
_CHUNK_BYTES = 1 << 20


def first_of_same(pictures: Iterable[Picture]) -> dict[Picture, Picture]:
    """For each picture, in their order, the first that has its bytes, mostly itself.

    Of most files the size alone tells them apart, of most others the beginning: little is read.
    One that cannot be read is like no other.
    """
    listed = list(dict.fromkeys(pictures))
    groups = [listed]
    for feature in (_size, _beginning, _digest):
        groups = [part for group in groups for part in _parted(group, feature)]
    first = {each: group[0] for group in groups for each in group}
    return {each: first[each] for each in listed}


def open_picture(picture: Picture) -> BinaryIO:
    """Its file, or its archive, at where its bytes begin.

    Raises:
        OSError: it cannot be opened.
    """
    if not isinstance(picture, ShardMember):
        return picture.open("rb")
    file = picture.shard.open("rb")
    file.seek(picture.offset)
    return file


def _parted(
    group: Sequence[Picture], feature: Callable[[Picture], object]
) -> Iterable[list[Picture]]:
    if len(group) == 1:
        return [list(group)]
    parts: dict[object, list[Picture]] = {}
    for each in group:
        try:
            parts.setdefault(feature(each), []).append(each)
        except OSError:
            parts[each] = [each]
    return parts.values()


def _size(picture: Picture) -> object:
    if isinstance(picture, ShardMember):
        return picture.size
    status = picture.stat()
    # What is no file has no bytes of its own, and may let its reader wait.
    return status.st_size if stat.S_ISREG(status.st_mode) else picture


def _beginning(picture: Picture) -> bytes:
    with open_picture(picture) as file:
        return file.read(min(_BEGINNING_BYTES, _length(picture)))


def _digest(picture: Picture) -> bytes:
    digest, left = hashlib.sha256(), _length(picture)
    with open_picture(picture) as file:
        while left and (chunk := file.read(min(_CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.digest()


def _length(picture: Picture) -> int:
    return picture.size if isinstance(picture, ShardMember) else picture.stat().st_size
