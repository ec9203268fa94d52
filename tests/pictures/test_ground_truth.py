"""Files of classes as ImageNet has them; its own numbers are not the networks' class indices."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from effnet_edge.errors import UsageError
from effnet_edge.labels import ClassIndices, imagenet_labels
from effnet_edge.pictures.ground_truth import labelled
from effnet_edge.pictures.sets import ImageSet
from effnet_edge.pictures.shards import ShardMember

if TYPE_CHECKING:
    from pathlib import Path

# The first synsets of the devkit of ILSVRC2012, with torchvision's class index of each.
DEVKIT = {1: ("n02119789", 278), 2: ("n02100735", 212), 3: ("n02110185", 250)}
IMAGENET = ClassIndices(imagenet_labels())


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    """Three pictures, flat, as ImageNet's validation set is."""
    (tmp_path / "val").mkdir()
    for number in (1, 2, 3):
        name = f"ILSVRC2012_val_{number:08}.JPEG"
        Image.new("RGB", (9, 9)).save(tmp_path / "val" / name, "JPEG")
    return ImageSet.from_folder(tmp_path / "val")


def truth(folder: Path, text: str, name: str = "ILSVRC2012_validation_ground_truth.txt") -> Path:
    (folder / name).write_text(text)
    return folder / name


def write_meta(folder: Path) -> None:
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    rows = [(number, wnid, "dog") for number, (wnid, _) in DEVKIT.items()]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, kinds)})


def write_map(folder: Path) -> None:
    rows = (f"{wnid} {number} a_dog\n" for number, (wnid, _) in DEVKIT.items())
    (folder / "map_clsloc.txt").write_text("".join(rows))


@pytest.mark.parametrize("write", [write_meta, write_map])
def test_the_devkits_numbers_become_the_networks_classes(
    tmp_path: Path, images: ImageSet, write: object
) -> None:
    assert callable(write)
    write(tmp_path)
    found = labelled(images, truth(tmp_path, "3\n1\n2\n"), IMAGENET)
    assert found.labels == (250, 278, 212)
    assert "ILSVRC's own numbers" in found.source
    with pytest.raises(UsageError, match="9 is no number of ILSVRC's"):
        labelled(images, truth(tmp_path, "3\n1\n9\n"), IMAGENET)


def test_the_devkits_numbers_alone_are_not_taken_for_class_indices(
    tmp_path: Path, images: ImageSet
) -> None:
    with pytest.raises(UsageError, match=r"meta\.mat or map_clsloc\.txt"):
        labelled(images, truth(tmp_path, "490\n361\n171\n"), IMAGENET)


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("0\n999\n65\n", (0, 999, 65)),
        ("n01440764\nn02119789\n\nn01440764\n", (0, 278, 0)),
        (
            "ILSVRC2012_val_00000003.JPEG 7\nILSVRC2012_val_00000001.JPEG 0\n"
            "ILSVRC2012_val_00000004.JPEG 9\nILSVRC2012_val_00000002.JPEG 5\n",
            (0, 5, 7),
        ),
        (
            "ILSVRC2012_val_00000001.JPEG n02119789\nILSVRC2012_val_00000002.JPEG n02119789\n"
            "ILSVRC2012_val_00000003.JPEG n01440764\n",
            (278, 278, 0),
        ),
    ],
    ids=["indices", "wnids", "names and indices", "names and wnids"],
)
def test_other_files_of_classes(
    tmp_path: Path, images: ImageSet, text: str, indices: tuple[int, ...]
) -> None:
    write_map(tmp_path)  # does not matter where a 0 or a WordNet id is there
    assert labelled(images, truth(tmp_path, text), IMAGENET).labels == indices


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0\n1\n", "classes of 2 pictures, and .* has 3"),
        ("0\n1\nzebra fish\n", "line 3"),
        ("0\n1\nn99\n", "'n99' is none of the model's classes"),
        ("a.JPEG 0\nb.JPEG 1\n", "does not tell the class of 'ILSVRC2012_val_00000001.JPEG'"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("0\n-1\n3\n", "'-1' is none"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, images: ImageSet, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        labelled(images, truth(tmp_path, text), IMAGENET)


@pytest.fixture
def nested(tmp_path: Path) -> ImageSet:
    """Three pictures of one name in three folders, and one of another."""
    for folder, name in (("a", "1"), ("b", "1"), ("c", "1"), ("c", "2")):
        (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "set" / folder / f"{name}.jpg")
    return ImageSet.from_folder(tmp_path / "set")


@pytest.mark.parametrize(
    "text",
    [
        "c/1.jpg 7\n./a/1.jpg 0\nb/1.jpg 5\nc/2.jpg 9\n",
        "set/c/1.jpg 7\nset/b/1.jpg 5\nset/a/1.jpg 0\n2.jpg 9\nset/b/1.jpg 5\n",
        "1.jpg 5\na/1.jpg 0\nc/1.jpg 7\nc/2.jpg 9\n2.jpg 3\n",
    ],
    ids=["from the folder", "from above it", "the longer path counts"],
)
def test_paths_tell_pictures_of_one_name_apart(tmp_path: Path, nested: ImageSet, text: str) -> None:
    assert labelled(nested, truth(tmp_path, text), IMAGENET).labels == (0, 5, 7, 9)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "2.jpg 0\n1.jpg 5\n",
            r"line 2: '1.jpg' may be any of 3 pictures \('a/1.jpg', 'b/1.jpg', 'c",
        ),
        ("1.jpg 0\n2.jpg 5\n\n1.jpg 6\n", "line 4: '1.jpg' is told otherwise than in .*, line 1"),
        ("a/1.jpg 0\nb/1.jpg 5\n", "does not tell the class of 'c/1.jpg'"),
        ("a/1.jpg 0\n5\n", "line 2: give a class in each line, or a name and a class"),
    ],
)
def test_a_line_is_of_one_picture_and_a_picture_of_one_class(
    tmp_path: Path, nested: ImageSet, text: str, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        labelled(nested, truth(tmp_path, text), IMAGENET)


def test_members_of_archives_are_told_by_their_paths_and_name_their_archives(
    tmp_path: Path, nested: ImageSet
) -> None:
    shards = [tmp_path / "0.tar", tmp_path / "1.tar"]
    for shard, picture in zip(shards, nested.paths, strict=False):
        assert not isinstance(picture, ShardMember)
        with tarfile.open(shard, "w") as archive:
            archive.add(picture, "x/1.jpg")
    one, both = ImageSet.from_shards(shards[:1]), ImageSet.from_shards(shards)
    assert labelled(one, truth(tmp_path, "x/1.jpg 0\n"), IMAGENET).labels == (0,)
    with pytest.raises(UsageError, match=r"'0.tar/x/1.jpg', '1.tar/x/1.jpg'"):
        labelled(both, truth(tmp_path, "x/1.jpg 0\n"), IMAGENET)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + bytes(200), bytes(range(256))])
def test_a_damaged_meta_mat_is_one_line(tmp_path: Path, images: ImageSet, content: bytes) -> None:
    (tmp_path / "meta.mat").write_bytes(content)
    with pytest.raises(UsageError, match=r"is no meta\.mat"):
        labelled(images, truth(tmp_path, "1\n2\n3\n"), IMAGENET)
