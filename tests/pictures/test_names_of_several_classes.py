"""A name of several classes, as "crane" is of a bird and a machine, tells no picture's class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from effnet_edge.errors import UsageError
from effnet_edge.labels import ClassIndices, Label, imagenet_labels
from effnet_edge.pictures.ground_truth import labelled
from effnet_edge.pictures.sets import ImageSet

if TYPE_CHECKING:
    from pathlib import Path

IMAGENET = ClassIndices(imagenet_labels())
REFUSAL = r"'crane' names the classes 134 and 517: tell the class by its WordNet id"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "crane").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "crane/a.png")
    return tmp_path


def test_a_folder_of_that_name(folder: Path) -> None:
    with pytest.raises(UsageError, match=f"crane/a.png: {REFUSAL}"):
        ImageSet.from_folder(folder, IMAGENET)
    (folder / "crane").rename(folder / "n03126707")
    assert ImageSet.from_folder(folder, IMAGENET).labels == (517,)


def test_a_row_of_a_csv_file(folder: Path) -> None:
    (folder / "a.csv").write_text("path,label\ncrane/a.png,crane\n")
    with pytest.raises(UsageError, match=f"a.csv', line 2: {REFUSAL}"):
        ImageSet.from_csv(folder / "a.csv", IMAGENET)
    (folder / "a.csv").write_text("path,label\ncrane/a.png,n02012849\n")
    assert ImageSet.from_csv(folder / "a.csv", IMAGENET).labels == (134,)


def test_a_line_of_a_file_of_classes(folder: Path) -> None:
    (folder / "truth.txt").write_text("crane\n")
    with pytest.raises(UsageError, match=f"truth.txt': {REFUSAL}"):
        labelled(ImageSet.from_folder(folder), folder / "truth.txt", IMAGENET)


def test_only_what_names_several_is_refused() -> None:
    labels = [Label("n01", None), Label("owl", "n01"), Label("a", "n02"), Label("n03", "n03")]
    indices = ClassIndices([*labels, Label("a", "n04"), Label("a", None)])
    assert [indices[name] for name in ("owl", "n02", "n03", "n04")] == [1, 2, 3, 4]
    with pytest.raises(UsageError, match="'n01' names the classes 0 and 1"):
        indices["n01"]
    with pytest.raises(UsageError, match="'a' names the classes 2, 4 and 5"):
        indices["a"]
    assert "b" not in indices
