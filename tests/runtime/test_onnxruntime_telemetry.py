"""ONNX Runtime reports nothing, and keeps no number of the device, whoever imports it first."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.graphs.sessions import TELEMETRY_SWITCH

if TYPE_CHECKING:
    from pathlib import Path

RUN = "from effnet_edge import EngineRunner; EngineRunner.load(sys.argv[1]).warmup()"
SIMPLIFY = (
    "import onnx; from effnet_export.simplify import simplify; "
    "simplify(onnx.load(sys.argv[1] + '/model.onnx'))"
)


@pytest.mark.parametrize("code", [RUN, SIMPLIFY, "import onnxruntime"])
def test_nothing_is_kept_of_the_device(code: str, tmp_path: Path) -> None:
    path, home = write_bundle(tmp_path / "bundle", "onnxruntime", tiny_model()), tmp_path / "home"
    home.mkdir()
    own = {"HOME": str(home)}
    if code.startswith("import onnxruntime"):
        own[TELEMETRY_SWITCH] = "1"  # that the variable is still its name
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name != TELEMETRY_SWITCH and not name.startswith("XDG_")
    }

    told = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}", path],
        env=inherited | own,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (told.returncode, told.stdout) == (0, ""), told.stderr
    assert not list(home.rglob("*"))
