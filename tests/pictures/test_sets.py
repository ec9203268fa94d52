from __future__ import annotations

import os
import random
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effnet_edge.errors import EffnetEdgeError, ImageError, UsageError
from effnet_edge.pictures.image import Preprocessing, prepare
from effnet_edge.pictures.sets import ImageSet

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALL = Preprocessing(16, 0.875, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLASSES = {"n01440764": 0, "n01443537": 1, "goldfish": 1, "tench": 0}


def picture(file: Path, seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def one_line(error: pytest.ExceptionInfo[EffnetEdgeError]) -> str:
    text = str(error.value)
    assert text.strip()
    assert len(text.splitlines()) == 1
    return text


def names(images: ImageSet, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in images.paths]


# --- folders --------------------------------------------------------------------------------


def test_a_folder_is_read_at_any_depth_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.JPG", "a/deep/er/x.WebP", "z.jpeg", "a.tiff"):
        picture(tmp_path / name)
    images = ImageSet.from_folder(tmp_path)
    assert names(images, tmp_path) == [
        "a.tiff",
        "a/deep/er/x.WebP",
        "b/10.JPG",
        "b/2.png",
        "z.jpeg",
    ]
    assert len(images) == 5
    assert images.labels is None
    assert images.source == str(tmp_path)


def test_hidden_files_and_other_files_are_passed_over(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "._a.png")
    picture(tmp_path / ".cache" / "a.png")
    for name in ("notes.txt", "png", "a.png.part", "a.svg"):
        (tmp_path / name).write_text("x")
    assert names(ImageSet.from_folder(str(tmp_path)), tmp_path) == ["a.png"]


def test_every_format_that_the_folder_takes_can_be_decoded(tmp_path: Path) -> None:
    for extension in ("jpg", "png", "webp", "bmp", "gif", "tif", "ppm", "jp2"):
        picture(tmp_path / f"a.{extension}")
    ((pixels, _),) = ImageSet.from_folder(tmp_path).batches(SMALL, 100)
    assert len(pixels) == 8


def test_folders_named_after_classes_label_the_set(tmp_path: Path) -> None:
    picture(tmp_path / "n01443537" / "a.png")
    picture(tmp_path / "n01440764" / "b.png")
    picture(tmp_path / "deeper" / "goldfish" / "c.png")
    images = ImageSet.from_folder(tmp_path, CLASSES)
    assert [path.name for path in images.paths] == ["c.png", "b.png", "a.png"]
    assert images.labels == (1, 0, 1)


def test_one_picture_outside_the_classes_leaves_the_set_unlabelled(tmp_path: Path) -> None:
    picture(tmp_path / "goldfish" / "a.png")
    picture(tmp_path / "cats" / "b.png")
    assert ImageSet.from_folder(tmp_path, CLASSES).labels is None


def test_linked_folders_are_followed_once_and_circles_end(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    picture(outside / "a.png")
    root = tmp_path / "set"
    picture(root / "b.png")
    (root / "linked").symlink_to(outside)
    (outside / "back").symlink_to(root)
    assert names(ImageSet.from_folder(root), root) == ["b.png", "linked/a.png"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none", "does not exist"),
        ("a.png", "is a file"),
        ("a.png/b", "cannot be read"),
        ("empty", "has no pictures"),
        ("line\nbreak", "has no pictures"),
        ("x" * 5000, "cannot be read"),
    ],
)
def test_a_folder_that_cannot_be_used_is_a_usage_error(
    tmp_path: Path, name: str, reason: str
) -> None:
    picture(tmp_path / "a.png")
    for folder in ("empty", "line\nbreak"):
        (tmp_path / folder).mkdir()
    with pytest.raises(UsageError, match=reason) as error:
        ImageSet.from_folder(tmp_path / name)
    assert repr(str(tmp_path / name)) in one_line(error)


def test_a_subfolder_that_may_not_be_read_is_not_silently_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def guarded(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)  # root, as in containers, may read everything
    with pytest.raises(UsageError, match=r"locked.*Permission denied"):
        ImageSet.from_folder(tmp_path)


# --- CSV ------------------------------------------------------------------------------------


def csv_file(folder: Path, content: str | bytes) -> Path:
    picture(folder / "p" / "a.png")
    picture(folder / "p" / "b, c.png")
    file = folder / "labels.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize(
    "content",
    [
        'path,class_index\np/a.png,1\n"p/b, c.png",0\n',
        'path,class_index\r\np/a.png,1\r\n"p/b, c.png",0',
        '\ufeffpath , class_index\n\np/a.png, 1 \n\n"p/b, c.png",0\n\n',
        'wnid,path\nn01443537,p/a.png\nn01440764,"p/b, c.png"\n',
        'label,path,note\ngoldfish,p/a.png,\ntench,"p/b, c.png",x\n',
        'wnid,path,class_index\nunknown,p/a.png,1\nunknown,"p/b, c.png",0\n',
    ],
    ids=["plain", "CRLF", "BOM, blanks", "wnid", "label", "class_index first"],
)
def test_a_csv_gives_paths_and_labels_in_its_order(tmp_path: Path, content: str) -> None:
    file = csv_file(tmp_path, content)
    images = ImageSet.from_csv(file, CLASSES)
    assert images.paths == (tmp_path / "p" / "a.png", tmp_path / "p" / "b, c.png")
    assert images.labels == (1, 0)
    assert images.source == str(file)


def test_an_absolute_path_in_a_csv_is_taken_as_it_is(tmp_path: Path) -> None:
    elsewhere = picture(tmp_path / "elsewhere" / "a.png")
    file = csv_file(tmp_path / "set", f"path,class_index\n{elsewhere},7\n")
    assert ImageSet.from_csv(file) == ImageSet((elsewhere,), (7,), str(file))


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("class_index\n1\n", 1, "no column 'path'"),
        ("path\np/a.png\n", 1, "no column 'class_index'"),
        ("path,path,class_index\n", 1, "'path' is named twice"),
        ("\n\np/a.png,1\n", 3, "no column 'path'"),
        ("path,class_index\np/a.png,1\np/a.png,one\n", 3, "'one' is not an integer"),
        ("path,class_index\np/a.png,1.0\n", 2, "'1.0' is not an integer"),
        ("path,class_index\np/a.png,-1\n", 2, "'-1' is not an integer of 0 or more"),
        ("path,class_index\np/a.png,\n", 2, "'' is not an integer"),
        ("path,class_index\np/a.png,٣\n", 2, "not an integer"),
        (f"path,class_index\np/a.png,{'9' * 5000}\n", 2, "not an integer"),
        ("path,label\np/a.png,tench\np/a.png,cat\n", 3, "label 'cat' is none of the known"),
        ("path,wnid\n\np/a.png,n1\n", 3, "wnid 'n1' is none of the known"),
        ("path,class_index\np/a.png,1\nnone.png,1\n", 3, "none.png' does not exist"),
        (
            "path,class_index\np/a.png,1\n\np/a.png,1\n./p/a.png,2\n",
            5,
            "p/a.png' is told otherwise than in",
        ),
        ("label,path\ntench,p/a.png\ngoldfish,p/a.png\n", 3, "labels.csv', line 2: leave one out"),
        ("path,class_index\np,1\n", 2, "does not exist"),
        (f"path,class_index\n{'x' * 5000},1\n", 2, "does not exist"),
        ("path,class_index\np/a.png\n", 2, "1 columns where the header names 2"),
        ("path,class_index\np/a.png,1,2\n", 2, "3 columns"),
        ('path,class_index\np/a.png,1\n"p/a.png,1\n\n', 3, "not CSV"),
        ('note,path,class_index\n"two\nlines",p/a.png,1\n"two\nlines",p/a.png,x\n', 4, "'x'"),
        (b"path,class_index\np/a.png,1\np/\xff.png,1\n", 3, "not UTF-8"),
        (b"path,class_index\np/a\0.png,1\n", 2, "NUL"),
        ("path,class_index\n", None, "lists no pictures"),
        ("", None, "is empty"),
        (" \n\n", None, "is empty"),
    ],
)
def test_a_bad_csv_is_refused_with_its_line(
    tmp_path: Path, content: str | bytes, line: int | None, reason: str
) -> None:
    file = csv_file(tmp_path, content)
    with pytest.raises(UsageError) as error:
        ImageSet.from_csv(file, CLASSES)
    text = one_line(error)
    assert reason in text
    assert repr(str(file)) in text
    assert line is None or f", line {line}:" in text


def test_names_of_classes_need_classes_to_look_them_up_in(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "path,wnid\np/a.png,n01440764\n")
    with pytest.raises(UsageError, match=r"line 1: .*'wnid'.*'class_index'"):
        ImageSet.from_csv(file)


@pytest.mark.parametrize(("name", "reason"), [("none.csv", "does not exist"), ("p", "cannot be")])
def test_a_csv_that_cannot_be_opened_is_a_usage_error(
    tmp_path: Path, name: str, reason: str
) -> None:
    csv_file(tmp_path, "")
    with pytest.raises(UsageError, match=reason) as error:
        ImageSet.from_csv(tmp_path / name)
    assert repr(str(tmp_path / name)) in one_line(error)


@given(st.binary(max_size=200) | st.text(alphabet='path,class_index\n\r"0\x00 ', max_size=80))
@settings(deadline=None)
def test_any_other_content_is_one_usage_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(
        b"path,class_index\n" + (content.encode() if isinstance(content, str) else content)
    )
    with pytest.raises(UsageError) as error:
        ImageSet.from_csv(file)
    assert repr(str(file)) in one_line(error)


# --- subsets --------------------------------------------------------------------------------


def numbered(count: int) -> ImageSet:
    return ImageSet(tuple(Path(f"{n}.png") for n in range(count)), tuple(range(count)), "numbers")


@given(st.integers(1, 300), st.integers(1, 320), st.integers(0, 2**32))
def test_a_subset_is_a_sample_in_order_and_always_the_same(
    total: int, count: int, seed: int
) -> None:
    whole = numbered(total)
    part = whole.subset(count, seed)
    assert part == whole.subset(count, seed)
    assert len(part) == min(count, total)
    assert part.labels is not None
    assert list(part.labels) == sorted(set(part.labels))
    assert [path.stem for path in part.paths] == [str(label) for label in part.labels]
    assert set(part.labels) <= set(whole.subset(count + 1, seed).labels or ())


def test_seeds_give_different_subsets_and_every_picture_its_chance() -> None:
    whole = numbered(20)
    drawn = [whole.subset(5, seed).labels or () for seed in range(200)]
    assert len(set(drawn)) > 150
    counts = np.bincount([label for labels in drawn for label in labels], minlength=20)
    assert counts.min() > 25  # 50 expected, standard deviation 6


def test_a_subset_leaves_the_global_random_numbers_alone() -> None:
    random.seed(1)
    first = random.random()
    random.seed(1)
    numbered(9).subset(3)
    assert random.random() == first


def test_a_subset_says_what_it_is_and_keeps_a_set_unlabelled() -> None:
    part = ImageSet(numbered(9).paths, None, "photos").subset(3, seed=5)
    assert part.labels is None
    assert part.source == "3 of the 9 pictures in photos (seed 5)"


@pytest.mark.parametrize("count", [0, -1])
def test_an_empty_subset_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match=str(count)):
        numbered(9).subset(count)


# --- batches --------------------------------------------------------------------------------


def saved_set(folder: Path, count: int) -> ImageSet:
    paths = tuple(picture(folder / f"{n:03}.png", seed=n) for n in range(count))
    return ImageSet(paths, tuple(10 + n for n in range(count)), "saved")


@given(count=st.integers(1, 9), batch_size=st.integers(1, 11), bad=st.sets(st.integers(0, 8)))
@settings(max_examples=40, deadline=None)
def test_batches_hold_every_readable_picture_once_with_its_label(
    tmp_path_factory: pytest.TempPathFactory, count: int, batch_size: int, bad: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("set")
    images = saved_set(folder, count)
    for index in bad & set(range(count)):
        images.paths[index].write_bytes(b"damaged")
    good = [index for index in range(count) if index not in bad]
    skipped: list[str] = []
    batches = list(images.batches(SMALL, batch_size, skipped))
    full, rest = divmod(len(good), batch_size)
    assert [len(pixels) for pixels, _ in batches] == [batch_size] * full + [rest] * (rest > 0)
    assert len(skipped) == count - len(good)
    if good:
        pixels = np.concatenate([pixels for pixels, _ in batches])
        labels = np.concatenate([labels for _, labels in batches if labels is not None])
        assert (pixels.dtype, labels.dtype) == (np.uint8, np.int64)
        assert pixels.shape[1:] == (16, 16, 3)
        np.testing.assert_array_equal(labels, [10 + index for index in good])
        expected = [prepare(images.paths[index], SMALL) for index in good]
        np.testing.assert_array_equal(pixels, expected)


def test_an_unlabelled_set_gives_batches_without_labels(tmp_path: Path) -> None:
    images = ImageSet(saved_set(tmp_path, 3).paths, None, "photos")
    assert [labels for _, labels in images.batches(SMALL, 2)] == [None, None]


def test_an_unreadable_picture_raises_unless_it_may_be_skipped(tmp_path: Path) -> None:
    images = saved_set(tmp_path, 3)
    images.paths[1].write_bytes(b"damaged")
    with pytest.raises(ImageError, match=r"001\.png"):
        list(images.batches(SMALL, 2))
    images.paths[2].unlink()
    skipped: list[str] = []
    ((pixels, labels),) = images.batches(SMALL, 2, skipped)
    assert len(pixels) == 1
    assert labels is not None
    assert labels.tolist() == [10]
    assert [("001.png" in skipped[0]), ("002.png" in skipped[1])] == [True, True]


def test_few_pictures_are_read_before_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = picture(tmp_path / "a.png")
    images = ImageSet((file,) * 200, None, "a")
    read: list[Path] = []

    def recorded(source: Path, preprocessing: Preprocessing) -> np.ndarray:
        read.append(source)
        return prepare(source, preprocessing)

    monkeypatch.setattr("effnet_edge.pictures.sets.prepare", recorded)
    batches = images.batches(SMALL, 2)
    assert read == []
    next(batches)
    batches.close()
    assert 2 <= len(read) <= 50


def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    file = picture(tmp_path / "a.png")
    large = Preprocessing(256, 1.0, "bilinear", SMALL.mean, SMALL.std)

    def peak(paths: Sequence[Path]) -> int:
        tracemalloc.start()
        try:
            for _ in ImageSet(tuple(paths), None, "a").batches(large, 4):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak([file] * 40)
    assert peak([file] * 400) < 1.5 * peak([file] * 40)


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_size_below_one_is_refused_at_once(batch_size: int) -> None:
    with pytest.raises(UsageError, match=str(batch_size)):
        numbered(3).batches(SMALL, batch_size)
