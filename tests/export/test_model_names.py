"""Models of one file name are told apart by as much of their paths as it takes."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.bundle import Bundle
from effnet_edge.model.request import NetworkRequest
from effnet_edge.runtime import EngineRunner
from effnet_export.model_files import Openings
from effnet_export.model_names import shortest_names
from effnet_export.opening import open_models

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["s1/m.onnx", "s2/m.onnx", "n.onnx"], ["s1/m.onnx", "s2/m.onnx", "n.onnx"]),
        (["a/x/m", "b/x/m", "b/y/m"], ["a/x/m", "b/x/m", "y/m"]),
        (["m.onnx", "./m.onnx"], ["m.onnx", "m.onnx"]),
        (["b0", "torch/"], ["here/b0", "here/torch"]),
        ([".", "../there"], ["here", "there"]),
        (["/m", "/a/m"], ["/m", "a/m"]),
    ],
)
def test_the_shortest_end_of_a_path_that_no_other_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], names: list[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert list(shortest_names(paths, ["torch", "b0"]).values()) == names


def test_bundles_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / each / "b0-onnxruntime-fp32" for each in ("old", "new")]
    write_bundle(paths[0], "onnxruntime", tiny_model())
    paths[1].parent.mkdir()
    shutil.copytree(*paths)
    file = shutil.copy(paths[0] / "model.onnx", tmp_path / "b0-onnxruntime-fp32.onnx")
    specs = [*map(str, paths), str(file)]
    with ExitStack() as stack:
        models = open_models(specs[0], specs, Openings(NetworkRequest("b0")), stack)
        told = ["old/b0-onnxruntime-fp32", "new/b0-onnxruntime-fp32", "b0-onnxruntime-fp32.onnx"]
        assert [each.name for each in models.candidates] == told
        assert models.reference.name == told[0]
        assert [each.model for each in models.files] == told[2:]


def test_a_bundle_is_called_as_its_folder_where_its_path_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_bundle(tmp_path / "bundle", "onnxruntime", tiny_model())
    (tmp_path / "link").symlink_to(path)
    for folder, given, name in (
        (path, ".", "bundle"),
        (tmp_path, "link", "link"),
        (tmp_path, "bundle/", "bundle"),
    ):
        monkeypatch.chdir(folder)
        assert Bundle.load(given).name == name
        with EngineRunner.load(given) as runner:
            assert runner.name == name
