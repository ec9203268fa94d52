"""Which pictures `effnet-edge predict` takes from a folder, a pattern, or both."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.cli.main import cli

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle "b", and pictures in "in" and "in/deep"."""
    write_bundle(tmp_path / "b", "onnxruntime", tiny_model(batch="N"))
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "deep/c.png", "d[1].png"):
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "in" / name)
    (tmp_path / "in/notes.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["in"], ["in/a.png", "in/b.jpg", "in/d[1].png", "in/deep/c.png"]),
        (["in/*"], ["in/a.png", "in/b.jpg", "in/d[1].png"]),
        (["in/**/*.png"], ["in/a.png", "in/d[1].png", "in/deep/c.png"]),
        (["in/d[1].png", "in/[ab].*", "in/a.png"], ["in/d[1].png", "in/a.png", "in/b.jpg"]),
    ],
)
def test_folders_and_patterns(given: list[str], named: list[str]) -> None:
    done = CliRunner().invoke(cli, ["predict", "b", *given, "--json"])
    assert done.exit_code == 0, done.output
    assert list(json.loads(done.stdout)["images"]) == named
