"""Pictures are the same where their bytes are, whatever they are called."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.pictures import same
from effnet_edge.pictures.same import first_of_same
from effnet_edge.pictures.sets import ImageSet

if TYPE_CHECKING:
    import pytest

LONG = bytes(range(256)) * 64


def files(folder: Path, **contents: bytes) -> list[Path]:
    paths = [folder / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    return paths


def test_the_first_of_the_same_bytes_stands_for_all(tmp_path: Path) -> None:
    a, b, copy, longer, late = paths = files(
        tmp_path, a=b"one", b=b"two", copy=b"one", longer=LONG + b"x", late=LONG + b"y"
    )

    assert first_of_same([*paths, a]) == {a: a, b: b, copy: a, longer: longer, late: late}
    assert first_of_same([copy, a]) == {copy: copy, a: copy}


def test_the_pictures_stay_in_their_order(tmp_path: Path) -> None:
    paths = files(tmp_path, a=b"one", b=b"other", c=b"two", d=b"another", e=b"one", f=b"their")
    assert list(first_of_same(paths)) == paths


def test_links_and_other_ways_to_a_file_are_that_file(tmp_path: Path) -> None:
    (a,) = files(tmp_path, a=b"one")
    (tmp_path / "folder").mkdir()
    link, around = tmp_path / "link", tmp_path / "folder" / ".." / "a"
    link.symlink_to(a)

    assert first_of_same([a, link, around]) == {a: a, link: a, around: a}


def test_what_cannot_be_read_is_like_nothing_else_and_is_not_waited_for(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("pipe", "another", "missing", "gone", "folder")]
    os.mkfifo(paths[0])
    os.mkfifo(paths[1])
    paths[4].mkdir()

    assert first_of_same(paths) == {path: path for path in paths}


def test_no_more_is_read_than_tells_two_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    own = same.open_picture
    monkeypatch.setattr(same, "open_picture", lambda each: read.append(each) or own(each))
    alone, a, b = files(tmp_path, alone=b"1", a=b"one", b=b"two")

    first_of_same([alone, a, b])

    assert read == [a, b]


def test_members_of_archives_are_compared_as_files_are(tmp_path: Path) -> None:
    for path in files(tmp_path, a=LONG, b=LONG, c=LONG[::-1]):
        path.rename(path.with_suffix(".png"))
    shards = [tmp_path / "one.tar", tmp_path / "two.tar"]
    for shard in shards:
        with tarfile.open(shard, "w") as archive:
            for path in sorted(tmp_path.glob("*.png")):
                archive.add(path, path.name)
    a, b, c, *others = ImageSet.from_shards(shards).paths

    assert first_of_same([a, b, c, *others]) == dict(
        zip([a, b, c, *others], [a, a, c, a, a, c], strict=True)
    )


def test_without_copies_it_is_a_subset_that_is_held_out(tmp_path: Path) -> None:
    for index in range(40):
        (tmp_path / f"{index:02}.png").write_bytes(b"%d" % index * (1 + index % 3))
    whole = ImageSet.from_folder(tmp_path)
    held, others = whole.hold_out(12)
    assert held.paths == whole.subset(12).paths
    assert others.paths == tuple(path for path in whole.paths if path not in held.paths)


def test_no_copy_of_what_is_held_out_is_among_the_others(tmp_path: Path) -> None:
    for index in range(20):
        content = f"{index % 10}".encode()
        (tmp_path / f"{index:02}.png").write_bytes(content)
    whole = ImageSet.from_folder(tmp_path)

    held, others = whole.hold_out(4)

    contents = [{Path(str(path)).read_bytes() for path in each.paths} for each in (held, others)]
    assert [len(each) for each in contents] == [4, 6]
    assert contents[0].isdisjoint(contents[1])
    assert (len(held), len(others)) == (8, 12)
    assert whole.different == 10
