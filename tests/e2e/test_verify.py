"""`effnet-edge verify` finds every fault that it promises to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from answered_bundles import put_answers
from click.testing import CliRunner
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.bundle import OutputSpec
from effnet_edge.cli.main import cli

if TYPE_CHECKING:
    from pathlib import Path


def verified(path: Path) -> tuple[int, dict[str, Any]]:
    told = CliRunner().invoke(cli, ["verify", str(path), "--json"])
    shown = CliRunner().invoke(cli, ["verify", str(path)])
    assert shown.exit_code == told.exit_code
    assert ("sound" if told.exit_code == 0 else "damaged") in shown.output
    return told.exit_code, json.loads(told.output)


@pytest.mark.parametrize("target", ["openvino", "onnxruntime", "litert"])
def test_a_sound_bundle(tmp_path: Path, target: str) -> None:
    code, told = verified(write_bundle(tmp_path / "b", target, tiny_model()))
    assert (code, told["sound"]) == (0, True)
    assert told["checks"]["labels.json"] == "as exported"
    assert told["checks"]["engine"] == "as the manifest says"
    assert told["checks"]["answers"] == "not compared: the bundle tells none"


@pytest.mark.parametrize("target", ["openvino", "onnxruntime", "litert"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_engine_answers_as_exported(tmp_path: Path, target: str, precision: str) -> None:
    model = tiny_model(batch="N")
    path = write_bundle(tmp_path / "b", target, model, precision=precision)
    put_answers(path, model)
    code, told = verified(path)
    assert (code, told["sound"]) == (0, True)
    assert told["checks"]["answers"].startswith("the engine answers as exported: ")
    assert ", at most " in told["checks"]["answers"]


@pytest.mark.parametrize("target", ["openvino", "onnxruntime", "litert"])
def test_an_engine_that_answers_otherwise_here(tmp_path: Path, target: str) -> None:
    """As where a library computes it wrongly on this processor: every file is as exported."""
    other = tiny_model(batch="N")
    (bias,) = (each for each in other.graph.initializer if each.name == "bias")
    bias.raw_data = (np.frombuffer(bias.raw_data, np.float32)[::-1] * 2).tobytes()
    path = write_bundle(tmp_path / "b", target, tiny_model(batch="N"))
    put_answers(path, other)
    told = CliRunner().invoke(cli, ["verify", str(path)])
    assert told.exit_code == 1
    assert f"{path}: answers otherwise here" in " ".join(told.output.split())
    checks = json.loads(CliRunner().invoke(cli, ["verify", str(path), "--json"]).output)["checks"]
    assert checks["engine"] == "as the manifest says"
    assert f"{path}: the engine answers otherwise than exported: " in checks["answers"]


def test_every_damaged_file_is_named(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "b", "openvino", tiny_model())
    for name in ("model.bin", "labels.json"):
        content = bytearray((path / name).read_bytes())
        content[3] ^= 1
        (path / name).write_bytes(content)
    (path / "notes.txt").touch()
    code, told = verified(path)
    assert (code, told["sound"]) == (1, False)
    for name in ("model.bin", "labels.json"):
        assert "is not the file that was exported" in told["checks"][name]
    assert "'notes.txt' is not part of this bundle" in told["checks"]["folder"]
    assert told["checks"]["model.xml"] == "as exported"


def test_a_manifest_that_lies_about_its_engine(tmp_path: Path) -> None:
    output = OutputSpec("logits", 4)
    path = write_bundle(tmp_path / "b", "openvino", tiny_model(), None, output=output)
    code, told = verified(path)
    assert code == 1
    assert "its output is float32" in told["checks"]["engine"]


def test_what_is_no_bundle(tmp_path: Path) -> None:
    code, told = verified(tmp_path)
    assert code == 1
    assert list(told["checks"]) == ["manifest.json"]


def test_what_cannot_run_here_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_bundle(tmp_path / "b", "onnxruntime", tiny_model())
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    code, told = verified(path)
    assert code == 0
    assert told["checks"]["engine"].startswith("not tried")
