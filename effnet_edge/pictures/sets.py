"""Pictures to calibrate on or to measure with: a folder, tar archives, or a CSV file of classes."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import ImageError, UsageError
from effnet_edge.labels import index_of
from effnet_edge.pictures.ahead import in_order
from effnet_edge.pictures.csv_files import (
    Tellings,
    csv_rows,
    header_of,
    is_file,
    picture_rows,
)
from effnet_edge.pictures.folders import folders_below
from effnet_edge.pictures.image import Pixels, Preprocessing, picture_extensions, prepare
from effnet_edge.pictures.same import first_of_same
from effnet_edge.pictures.shards import ShardMember, class_texts, shard_members

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    from effnet_edge.pictures.protocol import Batch, Outcome
    from effnet_edge.pictures.same import Picture

_LABEL_COLUMNS = ("class_index", "wnid", "label")
_CLASS_INDEX = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class ImageSet:
    """Pictures in a fixed order, with their classes where these are known."""

    paths: tuple[Path | ShardMember, ...]
    labels: tuple[int, ...] | None
    """A class index a path, or None for an unlabelled set."""
    source: str
    """How a person would name the set."""

    @classmethod
    def from_folder(
        cls,
        folder: str | os.PathLike[str],
        classes: Mapping[str, int] | None = None,
        channels: int = 3,
    ) -> ImageSet:
        """Every picture below `folder`, by extension, sorted by relative path; none hidden.

        `classes` maps class names or WordNet ids to class indices. The set is labelled where it
        holds the name of every picture's own folder. `channels` are those of the network; see
        `effnet_edge.pictures.image.picture_extensions`.

        Raises `UsageError` where the folder does not exist, cannot be read or has no pictures.
        """
        root = Path(folder)
        if is_file(root):
            raise UsageError(f"{str(root)!r} is a file; give a folder of pictures")
        extensions = picture_extensions(channels)
        found = _pictures_below(root, extensions)
        paths = sorted(found, key=lambda path: path.relative_to(root).as_posix())
        if not paths:
            wanted = "pictures" if channels in {1, 3} else f"pictures of {channels} channels"
            raise UsageError(
                f"{str(root)!r} has no {wanted}; looked for {', '.join(sorted(extensions))}"
            )
        labels = None
        if classes is not None and all(path.parent.name in classes for path in paths):
            labels = tuple(index_of(path.parent.name, classes, str(path)) for path in paths)
        return cls(tuple(paths), labels, str(root))

    @classmethod
    def from_shards(
        cls,
        shards: Sequence[Path],
        classes: Mapping[str, int] | None = None,
        channels: int = 3,
    ) -> ImageSet:
        """The pictures in tar archives, by extension, in the order in which they are there.

        The set is labelled where each has a member .cls of the same name, with a class index or
        what is in `classes`, or lies in a folder that is; never where `classes` is None.

        Raises `UsageError` where an archive cannot be read, none has a picture, or a .cls is no
        class.
        """
        members: list[ShardMember] = []
        told: dict[ShardMember, str] = {}
        extensions = picture_extensions(channels)
        for shard in shards:
            found, found_classes = shard_members(shard, extensions)
            members += found
            told |= found_classes
        source = str(shards[0]) if len(shards) == 1 else f"{len(shards)} archives from {shards[0]}"
        if not members:
            raise UsageError(f"{source}: no pictures; looked for {', '.join(sorted(extensions))}")
        texts = None if classes is None else class_texts(members, told, classes)
        labels = None
        if texts is not None:
            labels = tuple(
                _class_index(f"{each.name!r}", ".cls", text, classes)
                for each, text in zip(members, texts, strict=True)
            )
        return cls(tuple(members), labels, source)

    @classmethod
    def from_csv(
        cls,
        csv_file: str | os.PathLike[str],
        classes: Mapping[str, int] | None = None,
        *,
        labelled: bool | None = True,
    ) -> ImageSet:
        """The pictures that a CSV file lists, in its order.

        The header names a column `path`, relative to the file's folder, and one of `class_index`
        (0 or more), `wnid` and `label`; of several, the first in this order counts. The last two
        are looked up in `classes`. Where the set is not to be `labelled`, only `path` counts; where
        it is None, there need be no other.

        Raises `UsageError`, naming the file and the line, at the first row that is not so, whose
        picture does not exist, or that gives one another class than an earlier row.
        """
        file = Path(csv_file)
        rows = csv_rows(file)
        place, header = header_of(file, rows, () if labelled is False else _LABEL_COLUMNS)
        if labelled is None:
            labelled = any(name in header for name in _LABEL_COLUMNS)
        label_at = _label_column(place, header, classes) if labelled else None
        paths, labels, tellings = [], [], Tellings()
        for place, path, row in picture_rows(file, rows, header):
            paths.append(path)
            if label_at is not None:
                text = row[label_at].strip()
                labels.append(_class_index(place, header[label_at], text, classes))
                tellings.add(place, path, labels[-1])
        if not paths:
            raise UsageError(f"{str(file)!r} lists no pictures")
        return cls(tuple(paths), tuple(labels) if labelled else None, str(file))

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, count: int, seed: int = 0) -> ImageSet:
        """`count` pictures at random, in their order here; the whole set where it has no more.

        The same seed gives the same pictures, and a larger count keeps those of a smaller one.

        Raises `UsageError` where `count` is below 1.
        """
        if count < 1:
            raise UsageError(f"{count} pictures of {self.source!r} is no set; ask for 1 or more")
        if count >= len(self):
            return self
        # Of `random`, only random() is promised to give the same numbers in every Python.
        generator = random.Random(seed)
        draws = [generator.random() for _ in self.paths]
        chosen = sorted(sorted(range(len(self)), key=draws.__getitem__)[:count])
        return ImageSet(
            tuple(self.paths[index] for index in chosen),
            None if self.labels is None else tuple(self.labels[index] for index in chosen),
            f"{count} of the {len(self)} pictures in {self.source} (seed {seed})",
        )

    @property
    def different(self) -> int:
        """How many pictures there are, each counted once however often it is there."""
        return len(set(self._first_of_same.values()))

    @cached_property
    def _first_of_same(self) -> dict[Picture, Picture]:
        return first_of_same(self.paths)

    def hold_out(self, count: int) -> tuple[ImageSet, ImageSet]:
        """`count` pictures at random, and all the others; each with all its copies."""
        first = self._first_of_same
        different = replace(self, paths=tuple(dict.fromkeys(first.values())), labels=None)
        held = set(different.subset(count).paths)
        parts = []
        for wanted, source in (
            (True, f"{len(held)} pictures held out of the {len(self)} in {self.source}"),
            (False, f"{self.source} but for {len(held)} held out"),
        ):
            indices = [at for at, path in enumerate(self.paths) if (first[path] in held) is wanted]
            labels = None if self.labels is None else tuple(self.labels[at] for at in indices)
            parts.append(ImageSet(tuple(self.paths[at] for at in indices), labels, source))
        return parts[0], parts[1]

    def batches(
        self,
        preprocessing: Preprocessing,
        batch_size: int,
        skipped: list[str] | None = None,
        outcomes: list[Outcome] | None = None,
    ) -> Iterator[Batch]:
        """The network's inputs, uint8 (n, H, W, C), with their labels, int64 (n,), or None.

        Pictures are read as batches are asked for; n is `batch_size` for all but the last. A
        picture that cannot be read is left out and its error appended to `skipped`, where that is
        given. To `outcomes` what came of each picture is appended.

        Raises `UsageError` where `batch_size` is below 1 and, without `skipped`, what `prepare`
        raises.
        """
        if batch_size < 1:
            raise UsageError(f"the batch size is {batch_size}; it must be 1 or more")
        return self._batches(preprocessing, batch_size, skipped, outcomes)

    def _batches(
        self,
        preprocessing: Preprocessing,
        batch_size: int,
        skipped: list[str] | None,
        outcomes: list[Outcome] | None,
    ) -> Iterator[Batch]:
        pixels: list[Pixels] = []
        labels: list[int] = []
        reading = in_order(partial(_read, preprocessing=preprocessing), self.paths)
        for index, (path, read) in enumerate(zip(self.paths, reading, strict=True)):
            error = None if isinstance(read, np.ndarray) else str(read)
            if outcomes is not None:
                outcomes.append((str(path), error))
            if not isinstance(read, np.ndarray):
                if skipped is None:
                    raise read
                skipped.append(str(read))
                continue
            pixels.append(read)
            if self.labels is not None:
                labels.append(self.labels[index])
            if len(pixels) == batch_size:
                yield self._batch(pixels, labels)
                pixels, labels = [], []
        if pixels:
            yield self._batch(pixels, labels)

    def _batch(self, pixels: list[Pixels], labels: list[int]) -> Batch:
        return np.stack(pixels), None if self.labels is None else np.asarray(labels, np.int64)


def _read(
    picture: Path | ShardMember, preprocessing: Preprocessing
) -> Pixels | ImageError | UsageError:
    """The network's input, or why there is none."""
    try:
        if not isinstance(picture, ShardMember):
            return prepare(picture, preprocessing)
        try:
            return prepare(picture.read(), preprocessing)
        except ImageError as error:
            raise ImageError(f"{picture.name!r}: {error}") from error
    except (ImageError, UsageError) as error:
        return error


def _pictures_below(root: Path, extensions: frozenset[str]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        name = repr(str(error.filename))
        if isinstance(error, FileNotFoundError):
            raise UsageError(f"{name} does not exist; give a folder of pictures") from error
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error

    for folder, files in folders_below(root, refuse):
        for name in files:
            path = folder / name
            if not name.startswith(".") and path.suffix.lower() in extensions:
                yield path


def _label_column(place: str, header: list[str], classes: Mapping[str, int] | None) -> int:
    """Where the label is in a row."""
    label = next((name for name in _LABEL_COLUMNS if name in header), None)
    if label is None:
        raise UsageError(f"{place}: no column 'class_index', 'wnid' or 'label'; name one of them")
    if label != "class_index" and classes is None:
        raise UsageError(
            f"{place}: nothing is known here to look {label!r} up in; add a column 'class_index'"
        )
    return header.index(label)


def _class_index(place: str, column: str, text: str, classes: Mapping[str, int] | None) -> int:
    is_index = _CLASS_INDEX.fullmatch(text) is not None
    if column == "class_index" and not is_index:
        raise UsageError(f"{place}: class_index {text!r} is not an integer of 0 or more")
    if column in {"class_index", ".cls"} and is_index:
        return int(text)
    if classes is None or text not in classes:
        raise UsageError(f"{place}: {column} {text!r} is none of the known classes")
    return index_of(text, classes, place)
