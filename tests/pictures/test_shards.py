"""Tar archives, made by Python's own tarfile: what is a picture is read, all else is harmless."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_bundles import PREPROCESSING

from effnet_edge.errors import ImageError, UsageError
from effnet_edge.pictures.image import prepare
from effnet_edge.pictures.sets import ImageSet

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = {"n01": 1, "n02": 2}


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 10, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def shard(path: Path, members: dict[str, bytes], **options: str) -> Path:
    with tarfile.open(path, "w", **options) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_pictures_are_those_of_the_members_with_the_classes_beside_them(tmp_path: Path) -> None:
    one = shard(tmp_path / "1.tar", {"a.png": png(1), "a.cls": b"4\n", "a.json": b"{}"})
    two = shard(tmp_path / "2.tar", {"d/b.cls": b"n02", "d/b.PNG": png(2)})
    images = ImageSet.from_shards([one, two], CLASSES)
    assert [each.name for each in images.paths] == [f"{one}/a.png", f"{two}/d/b.PNG"]
    assert images.labels == (4, 2)
    outcomes: list[tuple[str, str | None]] = []
    ((pixels, labels),) = images.batches(PREPROCESSING, 8, outcomes=outcomes)
    assert outcomes == [(f"{one}/a.png", None), (f"{two}/d/b.PNG", None)]
    np.testing.assert_array_equal(labels, [4, 2])
    for row, seed in zip(pixels, (1, 2), strict=True):
        np.testing.assert_array_equal(row, prepare(png(seed), PREPROCESSING))


def test_folders_in_an_archive_are_classes_as_they_are_on_the_disk(tmp_path: Path) -> None:
    members = {"train/n01/a.png": png(1), "train/n02/a.png": png(2)}
    images = ImageSet.from_shards([shard(tmp_path / "a.tar", members)], CLASSES)
    assert images.labels == (1, 2)
    assert ImageSet.from_shards([tmp_path / "a.tar"]).labels is None


def test_hostile_members_write_and_read_nothing_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(9))
    path = tmp_path / "in" / "hostile.tar"
    path.parent.mkdir()
    names = ["../secret.png", "/etc/passwd.png", "a\x1b[31m\n.png", "..", "x/../../y.png"]
    with tarfile.open(path, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(png(1))
            archive.addfile(info, io.BytesIO(png(1)))
        for kind, name in ((tarfile.SYMTYPE, "link.png"), (tarfile.LNKTYPE, "hard.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(tmp_path / "secret.png")
            archive.addfile(info)
        for kind in (tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo("device.png")
            info.type = kind
            archive.addfile(info)
    before = sorted(tmp_path.rglob("*"))
    images = ImageSet.from_shards([path])
    assert [each.name for each in images.paths] == [f"{path}/{n}" for n in names if ".png" in n]
    for pixels, _ in images.batches(PREPROCESSING, 1):
        np.testing.assert_array_equal(pixels[0], prepare(png(1), PREPROCESSING))
    assert sorted(tmp_path.rglob("*")) == before


def test_of_two_members_of_a_name_the_later_counts(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for seed in (1, 2):
            info = tarfile.TarInfo("a.png")
            info.size = len(png(seed))
            archive.addfile(info, io.BytesIO(png(seed)))
    images = ImageSet.from_shards([tmp_path / "a.tar"])
    ((pixels, _),) = images.batches(PREPROCESSING, 8)
    np.testing.assert_array_equal(pixels[0], prepare(png(2), PREPROCESSING))


def test_a_member_that_is_no_picture_is_named_and_the_rest_go_on(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {"a.png": png(1), "bad.png": b"no", "c.png": png(2)})
    images, skipped = ImageSet.from_shards([path]), []
    ((pixels, _),) = images.batches(PREPROCESSING, 8, skipped)
    assert len(pixels) == 2
    assert len(skipped) == 1
    assert f"{path}/bad.png" in skipped[0]
    with pytest.raises(ImageError, match=r"bad\.png"):
        list(images.batches(PREPROCESSING, 8))


@pytest.mark.parametrize("lost", [1, 511, 512, 1024, 2000])
def test_an_archive_that_is_cut_off_is_one_line_or_ends_between_members(
    tmp_path: Path, lost: int
) -> None:
    path = shard(tmp_path / "a.tar", {"a.png": png(1), "b.png": bytes(4000)})
    content = path.read_bytes()
    ends = 512 + 512 * -(-len(png(1)) // 512) + 512 + 4000
    path.write_bytes(content[: ends - lost])
    with pytest.raises(UsageError, match=r"a\.tar"):
        ImageSet.from_shards([path])


@pytest.mark.parametrize("content", [b"", b"no tar" * 200, b"\x1f\x8b" + bytes(600)])
def test_what_is_no_tar_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.tar"):
        ImageSet.from_shards([path])
    with pytest.raises(UsageError, match="does not exist"):
        ImageSet.from_shards([tmp_path / "none.tar"])


@given(st.data())
def test_no_damage_to_an_archive_is_more_than_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a.tar"
    long = f"{'x' * 120}.png"  # has a header of its own
    content = bytearray(
        shard(path, {"a.png": png(1), "a.cls": b"1", long: png(2), "b.png": png(3)}).read_bytes()
    )
    # The size and the check sum of a header are where most can go wrong.
    header = 512 * data.draw(st.integers(0, len(content) // 512 - 1))
    for _ in range(data.draw(st.integers(1, 6))):
        at = header + data.draw(st.sampled_from([*range(124, 136), *range(148, 158), 0, 257, 345]))
        content[at] = data.draw(st.sampled_from([0, 0x20, 0x30, 0x37, 0x78, 0x80, 0xFF]))
    if data.draw(st.booleans()):  # with the right sum, as a hostile one has
        block = content[header : header + 512]
        total = sum(block[:148]) + sum(block[156:]) + 8 * 32
        content[header + 148 : header + 156] = b"%06o\0 " % total
    path.write_bytes(content)
    told: list[str] = []
    try:
        for _ in ImageSet.from_shards([path], CLASSES).batches(PREPROCESSING, 8, told):
            pass
    except UsageError as error:
        told.append(str(error))
    assert all("a.tar" in line and "\n" not in line for line in told)


def test_a_member_of_a_negative_size_does_not_lead_round_in_circles(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {"a.png": png(1)})
    content = bytearray(path.read_bytes())
    content[124:136] = b"\xff" * 10 + b"\xfc\x00"  # −1024
    content[148:156] = b"%06o\0 " % (sum(content[:148]) + sum(content[156:512]) + 8 * 32)
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.tar"):
        ImageSet.from_shards([path])


def test_a_class_that_is_none_is_one_line(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {"a.png": png(1), "a.cls": b"zebra"})
    with pytest.raises(UsageError, match="'zebra' is none of the known classes"):
        ImageSet.from_shards([path], CLASSES)


def test_an_archive_that_changes_while_it_is_read_costs_a_picture(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {"a.png": png(1), "b.png": png(2)})
    images, skipped = ImageSet.from_shards([path]), []
    path.write_bytes(path.read_bytes()[:600])
    assert list(images.batches(PREPROCESSING, 8, skipped)) == []
    assert len(skipped) == 2
