"""`effnet-edge export --int8`, end to end on the bundled B0."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from effnet_calibration.table import CalibrationTable
from effnet_edge.bundle import Bundle

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Run


def test_int8_calibrates_verifies_and_is_made_again_from_its_table(
    effnet_edge: Run, espresso: Path, tmp_path: Path
) -> None:
    first = effnet_edge("export", "b0", "--int8", "--calibration-size", "32", "-o", "first")
    assert first.returncode == 0, first.stderr
    assert "your own are better" in first.stderr

    bundle = Bundle.load(tmp_path / "first")
    table = CalibrationTable.load(tmp_path / "first" / bundle.manifest.calibration.table)
    assert bundle.manifest.calibration.size == table.images.size == 32
    assert [stage.stage for stage in bundle.manifest.parity] == [
        *("export", "simplify", "quantize", "openvino"),
    ]
    assert bundle.manifest.parity[-1].execution_precision == "INT8"
    answer = json.loads(effnet_edge("predict", "first", espresso, "--json").stdout)
    assert answer["images"][str(espresso)][0]["label"] == "espresso"

    again = effnet_edge(
        "export", "b0", "--int8", "--calibration", "first/calibration.json", "-o", "b"
    )
    assert again.returncode == 0, again.stderr
    assert (
        Bundle.load(tmp_path / "b").manifest.files["model.bin"]
        == (bundle.manifest.files["model.bin"])
    )

    other = effnet_edge(
        *("export", "b0", "--int8", "--calibration", "first/calibration.json"),
        *("--weights", "random", "-o", "c"),
    )
    assert other.returncode == 1
    assert "calibration table was made from other weights" in other.stderr
    assert not (tmp_path / "c").exists()
