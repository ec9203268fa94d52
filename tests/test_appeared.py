from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.appeared import noting
from effnet_edge.deploy.appearing import let_appear
from effnet_edge.files import replacing, write_whole

if TYPE_CHECKING:
    from pathlib import Path


def test_what_has_its_final_name_is_told(tmp_path: Path) -> None:
    write_whole(tmp_path / "before", "older")
    with noting() as written:
        assert written() == []
        write_whole(tmp_path / "before", "newer")
        write_whole(tmp_path / "cache", "for another time", is_cache=True)
        assert written() == [tmp_path / "before"]
        (tmp_path / "before").unlink()
        assert written() == []


def test_what_was_not_renamed_or_has_been_put_back_is_not_told(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / f"{name}.new").write_text("new")
        (tmp_path / name).write_text("old")
    moves = [(tmp_path / "one.new", tmp_path / "one"), (tmp_path / "gone", tmp_path / "other")]
    with noting() as written:
        with pytest.raises(FileNotFoundError), replacing(tmp_path / "one"):
            pass
        with pytest.raises(FileNotFoundError):
            let_appear(moves)
        assert (tmp_path / "one").read_text() == "old"
        assert written() == []
        (tmp_path / "one.new").write_text("new")
        let_appear(moves[:1])
        assert written() == [tmp_path / "one"]


def test_a_bundle_that_takes_the_place_of_another_is_told(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", "onnxruntime", tiny_model())
    with noting() as written:
        assert written() == []
        write_bundle(tmp_path / "b", "onnxruntime", tiny_model())
        assert written() == [tmp_path / "b"]


def test_nothing_is_kept_where_nobody_asks(tmp_path: Path) -> None:
    with noting() as written:
        pass
    write_whole(tmp_path / "file", "content")
    assert written() == []
