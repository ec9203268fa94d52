"""The TensorRT targets as a person meets them on a machine without a GPU."""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import TYPE_CHECKING

import pytest

from effnet_edge.runtime.tensorrt.build import can_build

if TYPE_CHECKING:
    from pathlib import Path

    from real_commands import Run

needs_no_engine = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here"
)


@pytest.mark.sample
@needs_no_engine
def test_without_the_library_the_bundle_says_what_to_run(
    effnet_edge: Run, espresso: Path, tmp_path: Path
) -> None:
    options = ("--target", "tensorrt", "--resolution", "64", "--calibration-size", "8")
    completed = effnet_edge("export", "b0", *options)

    assert completed.returncode == 0, completed.stderr
    last = completed.stderr.splitlines()[-1]
    assert last.endswith("on the device: effnet-edge build b0-tensorrt-fp16")
    manifest = json.loads((tmp_path / "b0-tensorrt-fp16" / "manifest.json").read_text())
    assert manifest["engines"] == []
    assert manifest["parity"][-1]["execution_precision"] == "FP16 (simulated)"
    assert {"model.onnx", "labels.json"} <= set(manifest["files"])

    compared = effnet_edge("parity", "b0-tensorrt-fp16", "--limit", "8", "--bisect", "--json")
    assert compared.returncode == 0, compared.stderr
    (candidate,) = json.loads(compared.stdout)["candidates"]
    assert candidate["candidate_precision"] == "FP16 (simulated)"
    assert candidate["faults"] == []
    assert 40 < candidate["sqnr_db"] < 80

    predicted = effnet_edge("predict", "b0-tensorrt-fp16", espresso)
    assert predicted.returncode == 1
    assert "there is no NVIDIA GPU here" in predicted.stderr
    assert "effnet-edge parity b0-tensorrt-fp16" in predicted.stderr

    built = effnet_edge("build", "b0-tensorrt-fp16")
    assert built.returncode == 1
    assert "TensorRT is not installed here: pip install 'effnet-edge[tensorrt]'" in built.stderr


@pytest.mark.sample
def test_an_engine_that_was_built_here_is_what_the_last_line_names(
    effnet_edge: Run, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    options = ("--target", "tensorrt-rtx", "--fp32", "--resolution", "64")
    built_for = ("--compute-capability", "8.6,8.9", "--require-engine")
    completed = effnet_edge("export", "b0", *options, *built_for)

    assert completed.returncode == 0, completed.stderr
    assert completed.stderr.splitlines()[-1] == (
        "Next: copy b0-tensorrt-rtx-fp32 to the device, whose program loads engine-sm86-sm89.plan"
    )
    assert (tmp_path / "b0-tensorrt-rtx-fp32" / "engine-sm86-sm89.plan").is_file()


@needs_no_engine
def test_a_required_engine_that_cannot_be_built_is_a_failure(
    effnet_edge: Run, tmp_path: Path
) -> None:
    completed = effnet_edge("export", "b0", "--target", "tensorrt", "--require-engine")
    assert completed.returncode == 1
    assert "--require-engine: no tensorrt engine can be built here" in completed.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_required_engine_where_there_is_none_to_build(effnet_edge: Run) -> None:
    completed = effnet_edge("export", "b0", "--target", "openvino", "--require-engine")
    assert completed.returncode == 2
    assert "--require-engine goes with tensorrt and tensorrt-rtx" in completed.stderr


def test_what_is_no_compute_capability(effnet_edge: Run, tmp_path: Path) -> None:
    completed = effnet_edge("build", tmp_path, "--compute-capability", "8.6,ada")
    assert completed.returncode == 2
    assert "'ada' is not a compute capability such as 8.6" in completed.stderr


def test_a_library_that_is_not_installed_builds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert not can_build("tensorrt-rtx")
