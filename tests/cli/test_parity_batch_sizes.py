"""The batch sizes at which `effnet-edge parity` runs a candidate again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from picture_makers import folder_of_noise
from tiny_bundles import SIDE, tiny_model, write_bundle

from effnet_edge.cli.main import cli

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("asked", "checked"), [(4, [1, 2, 4]), (5, [1, 2, 5]), (70_000, [1, 2, 5])]
)
def test_no_batch_is_larger_than_what_was_compared(
    tmp_path: Path, asked: int, checked: list[int]
) -> None:
    photos = folder_of_noise(tmp_path / "photos", 5, SIDE)
    bundle = write_bundle(tmp_path / "b", "onnxruntime", tiny_model())
    words = ["--reference", str(bundle), "--images", str(photos), "--batch-size", str(asked)]
    done = CliRunner().invoke(cli, ["parity", str(bundle), *words, "--json"])
    assert done.exit_code == 0, done.output
    (candidate,) = json.loads(done.stdout)["candidates"]
    assert [each["size"] for each in candidate["batch_sizes"]] == checked
