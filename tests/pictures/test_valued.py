"""Pictures with true values from a CSV file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from effnet_edge.errors import UsageError
from effnet_edge.pictures.image import Preprocessing
from effnet_edge.pictures.sets import ImageSet
from effnet_edge.pictures.valued import ValuedImages

if TYPE_CHECKING:
    from pathlib import Path

PREPROCESSING = Preprocessing(8, 0.875, "bicubic", (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(5):
        Image.new("RGB", (10, 10), (index, 0, 0)).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


def listed(folder: Path, text: str) -> Path:
    path = folder / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_values_stay_with_their_pictures(folder: Path) -> None:
    rows = "".join(f"{index}.png,{index * 1.5}\n" for index in (3, 1, 4, 0, 2))
    found = ValuedImages.from_csv(listed(folder, f"path,value\n{rows}broken.png,9\n"))
    assert (len(found), found.labels) == (6, None)
    for chosen in (found, found.subset(3)):
        skipped: list[str] = []
        batches = list(chosen.batches(PREPROCESSING, 2, skipped))
        assert sum(len(pixels) for pixels, _ in batches) == len(chosen) - len(skipped)
        for pixels, values in batches:
            assert values is not None
            np.testing.assert_allclose(values[:, 0], pixels[:, 0, 0, 0] * 1.5)


def test_columns_are_named_as_the_values_are(folder: Path) -> None:
    path = listed(folder, "y,note,path,x\n1,a,0.png,2\n")
    assert ValuedImages.from_csv(path, ["x", "y"]).values.tolist() == [[2, 1]]
    path = listed(folder, "path,value_1,value_0\n0.png,1e3,-2\n")
    assert ValuedImages.from_csv(path).values.tolist() == [[-2, 1000]]


@pytest.mark.parametrize(
    ("text", "names", "what"),
    [
        ("path,age\n0.png,1\n", None, "line 1: no column 'value_0'|line 1: no column 'value'"),
        ("path,value\n0.png,1\n", ["age"], "line 1: no column 'age': name one for each value"),
        ("path,value_0,value_2\n0.png,1,2\n", None, "no column 'value_1'"),
        ("path,value\n0.png,old\n", None, "line 2: value 'old' is no finite number"),
        ("path,value\n0.png,1\n1.png,nan\n", None, "line 3: value 'nan' is no finite number"),
        ("path,value\n0.png,\n", None, "line 2: value '' is no finite number"),
        ("path,value\nno.png,1\n", None, "line 2: the picture .* does not exist"),
        (
            "path,value\n0.png,1\n0.png,1\n0.png,2\n",
            None,
            "line 4: .*told otherwise than in .*line 2",
        ),
        ("path,value,value\n0.png,1,2\n", None, "'value' is named twice"),
        ("path,value\n", None, "lists no pictures"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    folder: Path, text: str, names: list[str] | None, what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        ValuedImages.from_csv(listed(folder, text), names)


def test_only_paths_are_read_where_no_labels_are_wanted(folder: Path) -> None:
    found = ImageSet.from_csv(listed(folder, "path,value\n0.png,1.5\n"), labelled=False)
    assert (found.labels, len(found)) == (None, 1)
