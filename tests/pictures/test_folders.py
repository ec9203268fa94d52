"""Patterns and folders whose links lead in circles."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet_edge.pictures.folders import folders_below, matches

if TYPE_CHECKING:
    from collections.abc import Iterable

TREE = ("a.jpg", "in/b.jpg", "in/deep/c.jpg", "in/deep/d.png", "in/.hidden/e.jpg", "[in]/f.jpg")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    for name in TREE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def files(found: Iterable[Path]) -> list[Path]:
    return [each for each in found if each.is_file()]


def files_of_glob(pattern: str) -> list[Path]:
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207
    return files(sorted({Path(each) for each in found}))


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["**", "*", "in", "deep", "[[]in]", "*.jpg", "?.png", "d*"]),
        min_size=1,
        max_size=4,
    )
)
def test_without_links_it_is_what_glob_finds(tree: Path, parts: list[str]) -> None:
    pattern = str(tree.joinpath(*parts))
    assert files(matches(pattern)) == files_of_glob(pattern)


def test_a_pattern_may_be_relative(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    for pattern in ("**/*.jpg", "in/**/*.jpg", "*.jpg", "**"):
        assert files(matches(pattern)) == files_of_glob(pattern)


def test_links_in_circles_are_followed_once(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "a.jpg").touch()
    (outside / "b.jpg").touch()
    for name in ("one", "two", "three"):
        (inside / name).symlink_to(inside)
    (inside / "linked").symlink_to(outside)
    (outside / "back").symlink_to(inside)

    assert matches(f"{inside}/**/*.jpg") == [inside / "a.jpg", inside / "linked" / "b.jpg"]
    assert [folder for folder, _ in folders_below(inside)] == [inside, inside / "linked"]
    assert matches(os.fspath(inside / "**" / "**" / "b.jpg"))
