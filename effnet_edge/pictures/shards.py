"""Pictures in tar archives, read where they lie: nothing is ever extracted to the disk.

The members are grouped as WebDataset does it: "0001.jpg" is a picture and "0001.cls" its class.
Names of members are text and never paths, so that one like "../../etc/passwd" does nothing; links,
devices and sparse files are not looked at.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from effnet_edge.errors import ImageError, UsageError, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SHARD = ".tar"
_CLASS = ".cls"
_MAX_CLASS_BYTES = 256
_MAX_PICTURE_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class ShardMember:
    """A picture in a tar archive: where its bytes begin, and how many there are."""

    shard: Path
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """Name the archive and the member, "shard.tar/0001.jpg"."""
        return f"{self.shard}/{self.member}"

    @property
    def folder(self) -> str:
        """Name the member's own folder, "" where it is in none."""
        return PurePosixPath(self.member).parent.name

    def read(self) -> bytes:
        """Give the picture's bytes.

        Raises:
            ImageError: the archive cannot be read, or not that far.
        """
        if self.size > _MAX_PICTURE_BYTES:
            raise ImageError(f"it is too large: at most {_MAX_PICTURE_BYTES >> 20} MiB are read")
        try:
            with self.shard.open("rb") as file:
                content = os.pread(file.fileno(), self.size, self.offset)
        except OSError as error:
            raise ImageError(f"it cannot be read: {error.strerror}") from error
        if len(content) != self.size:
            raise ImageError("the archive ends before it")
        return content

    def __str__(self) -> str:
        return self.name


def is_shard(path: Path) -> bool:
    """Whether it is named as a tar archive of pictures is."""
    return path.suffix.lower() == SHARD


def shard_members(
    shard: Path, extensions: frozenset[str]
) -> tuple[list[ShardMember], dict[ShardMember, str]]:
    """The pictures of an archive in its order, and of those that tell a class what they tell.

    Of two members of one name the later one counts, as for tar itself. None hidden.

    Raises:
        UsageError: it is not there, no plain tar archive, or cut off.
    """
    pictures: dict[str, ShardMember] = {}
    classes: dict[str, str] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            size = shard.stat().st_size
            while (info := archive.next()) is not None:
                # tarfile would keep a kilobyte of each.
                archive.members = []  # type: ignore[attr-defined]
                _refuse_cut_off(shard, info, size)
                name = PurePosixPath(info.name)
                if not info.isreg() or info.issparse() or name.name.startswith("."):
                    continue
                if name.suffix.lower() in extensions:
                    found = ShardMember(shard, info.name, info.offset_data, info.size)
                    pictures[info.name] = found
                elif name.suffix == _CLASS and info.size <= _MAX_CLASS_BYTES:
                    member = archive.extractfile(info)
                    text = member.read() if member else b""
                    classes[_key(info.name)] = text.decode("utf-8", "replace").strip()
    except FileNotFoundError as error:
        raise UsageError(f"{str(shard)!r} does not exist; give a tar archive") from error
    except UsageError:
        raise
    except Exception as error:
        # A damaged header lets nearly anything out: TarError, OverflowError, UnicodeError, …
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UsageError(
            f"{str(shard)!r} cannot be read as a tar archive that is not compressed: {reason}"
        ) from error
    found_classes = {
        each: classes[key] for each in pictures.values() if (key := _key(each.member)) in classes
    }
    return list(pictures.values()), found_classes


def class_texts(
    members: list[ShardMember], told: Mapping[ShardMember, str], classes: Mapping[str, int]
) -> list[str] | None:
    """What tells the class of each: its .cls, else its folder where that is a class; or None."""
    texts = [told.get(each, each.folder if each.folder in classes else "") for each in members]
    return texts if all(texts) else None


def _key(member: str) -> str:
    """What a sample's members have in common: all up to the first dot of the name."""
    path = PurePosixPath(member)
    return str(path.with_name(path.name.split(".", 1)[0])) if path.name else member


def _refuse_cut_off(shard: Path, info: tarfile.TarInfo, size: int) -> None:
    if info.size < 0:  # the next header would lie before this one
        raise UsageError(f"{str(shard)!r} is damaged at {info.name!r}: copy it again")
    if info.isreg() and not info.issparse() and info.offset_data + info.size > size:
        raise UsageError(f"{str(shard)!r} is cut off within {info.name!r}: copy it again")
