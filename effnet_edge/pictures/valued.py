"""Pictures with the true values of what a regression gives for them, from a CSV file."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import UsageError
from effnet_edge.outputs import value_names
from effnet_edge.pictures.csv_files import Tellings, csv_rows, header_of, picture_rows
from effnet_edge.pictures.sets import ImageSet

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Batch, Outcome


@dataclass(frozen=True)
class ValuedImages:
    """Paths of pictures in a fixed order, each with its true values.

    Attributes:
        images: labelled by the row of `values`.
        values: float64 (rows, outputs).
    """

    images: ImageSet
    values: npt.NDArray[np.float64]

    @classmethod
    def from_csv(
        cls, csv_file: str | os.PathLike[str], names: Sequence[str] | None = None
    ) -> ValuedImages:
        """The pictures that a CSV file lists, in its order.

        The header names a column `path`, relative to the file's folder, and the outputs by `names`
        in any order; without these, `value` for a single one, or `value_0`, `value_1` and so on.

        Raises:
            UsageError: naming the file and the line, at the first row that is not so, whose picture
                does not exist, whose value is no finite number, or that gives a picture another
                value than an earlier row.
        """
        file = Path(csv_file)
        rows = csv_rows(file)
        place, header = header_of(file, rows, names or ("value", "value_0"))
        columns = [header.index(name) for name in _value_columns(place, header, names)]
        paths, values, tellings = [], [], Tellings()
        for place, path, row in picture_rows(file, rows, header):
            paths.append(path)
            values.append([_value(place, header[at], row[at]) for at in columns])
            tellings.add(place, path, values[-1])
        if not paths:
            raise UsageError(f"{str(file)!r} lists no pictures")
        return cls(ImageSet(tuple(paths), tuple(range(len(paths))), str(file)), np.array(values))

    @property
    def source(self) -> str:
        """Name the set as a person would."""
        return self.images.source

    @property
    def labels(self) -> None:
        """Values are no classes."""

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, count: int) -> ValuedImages:
        """`count` pictures at random; see `ImageSet.subset`."""
        return replace(self, images=self.images.subset(count))

    def batches(
        self,
        preprocessing: Preprocessing,
        batch_size: int,
        skipped: list[str] | None = None,
        outcomes: list[Outcome] | None = None,
    ) -> Iterator[Batch]:
        """As `ImageSet.batches`, with the true values, float64 (n, outputs), as labels."""
        for pixels, rows in self.images.batches(preprocessing, batch_size, skipped, outcomes):
            yield pixels, self.values[rows]


def _value_columns(place: str, header: list[str], names: Sequence[str] | None) -> list[str]:
    numbered = sum(name.startswith("value_") for name in header)
    found = list(names or value_names(1 if "value" in header else max(numbered, 1)))
    missing = [name for name in found if name not in header]
    if missing:
        choice = "" if names else ", or 'value_0', 'value_1' and so on"
        raise UsageError(f"{place}: no column {missing[0]!r}{choice}: name one for each value")
    return found


def _value(place: str, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{place}: {column} {text.strip()!r} is no finite number")
    return value
