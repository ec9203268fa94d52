"""A sweep with real exports, whose originals are asked by PyTorch itself."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from effnet_edge.bundle import Bundle
from effnet_edge.fleet.commands import OWN_COMMAND

if TYPE_CHECKING:
    from pathlib import Path

PLAN = """
[pictures]
limit = 8
[gate]
min-agreement = 100
min-sqnr = 30
[bench]
runs = 3
[[sweep]]
variants = ["b0"]
targets = ["openvino", "onnxruntime"]
precisions = ["fp16"]
options = ["--weights", "random", "--resolution", "64", "--num-classes", "3"]
"""


def fleet(folder: Path) -> tuple[int, dict[str, Any]]:
    ended = subprocess.run(
        [*OWN_COMMAND[:-1], "sweep.toml", "--json", "-o", "kept"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout, ended.stderr
    return ended.returncode, json.loads(ended.stdout)


@pytest.mark.slow
def test_what_cannot_be_exported_is_a_row_and_the_rest_is_checked_once(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(PLAN)
    code, document = fleet(tmp_path)
    assert code == 1
    good, bad = document["jobs"]
    assert (good["bundle"], good["task"], good["state"]) == ("b0-openvino-fp16", "check", "passed")
    assert good["result"]["parity"]["reference"] == "torch"
    assert good["result"]["parity"]["images"] == 8
    assert (bad["bundle"], bad["task"], bad["state"]) == ("b0-onnxruntime-fp16", "export", "error")
    assert "no FP16 convolutions" in bad["error"]
    bundle = tmp_path / "kept/bundles/b0-openvino-fp16"
    made = Bundle.load(bundle).manifest.created
    (answers,) = (tmp_path / "kept/answers").iterdir()
    before = answers.read_bytes()
    assert fleet(tmp_path)[1]["jobs"][0] == good
    assert Bundle.load(bundle).manifest.created == made
    assert answers.read_bytes() == before
