"""Sizes and speeds in `effnet-edge parity`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnx
import pytest
from click.testing import CliRunner
from picture_makers import folder_of_noise
from tiny_bundles import SIDE, tiny_model, write_bundle

from effnet_edge.cli.main import cli
from effnet_export.model_sizes import model_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folder_of_noise(tmp_path / "photos", 4, SIDE)


def parity(tmp_path: Path, photos: Path, *options: str) -> Result:
    model = tiny_model(batch="N")
    candidate = write_bundle(tmp_path / "candidate", "openvino", model)
    reference = write_bundle(tmp_path / "reference", "onnxruntime", model)
    words = ["parity", candidate, "--reference", reference, "--images", photos, *options]
    return CliRunner().invoke(cli, list(map(str, words)))


def test_with_speed_all_take_turns_and_the_ratio_is_told(tmp_path: Path, photos: Path) -> None:
    page = tmp_path / "report.html"
    done = parity(tmp_path, photos, "--speed", "--json", "--report", str(page))

    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    (candidate,) = document["candidates"]
    assert (document["baseline"]["name"], document["baseline"]["rounds"]) == ("reference", 50)
    low, high = candidate["cost"]["middle_half"]
    assert 0 < low <= candidate["cost"]["times_as_fast"] <= high
    assert candidate["cost"]["median_seconds"] > 0
    assert "how many times as fast as reference" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_without_it_no_speed_is_told(tmp_path: Path, photos: Path) -> None:
    done = parity(tmp_path, photos, "--json")

    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    (candidate,) = document["candidates"]
    assert document["baseline"]["rounds"] == 0
    assert candidate["cost"]["times_as_fast"] is None
    files = tmp_path / "candidate"
    model = sum((files / name).stat().st_size for name in ("model.xml", "model.bin"))
    assert candidate["cost"]["model_bytes"] == model
    assert document["baseline"]["cost"]["model_bytes"] == sum(
        path.stat().st_size for path in (tmp_path / "reference").glob("model*")
    )
    again = tmp_path / "again"
    again.mkdir()
    table = parity(again, photos)
    assert table.exit_code == 0, table.output
    assert "times as fast" not in table.stdout
    assert "size" in table.stdout


def test_the_weights_beside_a_model_file_count(tmp_path: Path) -> None:
    model = tiny_model()
    onnx.save(model, tmp_path / "inside.onnx")
    onnx.save(
        model,
        tmp_path / "beside.onnx",
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
    )
    (tmp_path / "ir.xml").write_bytes(b"1234")
    (tmp_path / "ir.bin").write_bytes(b"56")

    def size(name: str) -> int | None:
        return model_bytes(str(tmp_path / name), object(), None)  # type: ignore[arg-type]

    beside = [(tmp_path / name).stat().st_size for name in ("beside.onnx", "weights")]
    assert size("beside.onnx") == sum(beside)
    assert beside[1] > 0
    assert size("inside.onnx") == (tmp_path / "inside.onnx").stat().st_size
    assert size("ir.xml") == 6
    assert size("net.unknown") is None
