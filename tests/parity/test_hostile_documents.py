"""Files that parity is given are refused in one line, whatever is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import helper
from tiny_bundles import PREPROCESSING

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.parity.measures.gate_file import gate_of, read_limits
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.parity.report.files import read_document

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "value", ["[" * 3000, "9" * 5000, "9" * 400, "-" + "9" * 400, "{a=" * 2000, "inf", "nan"]
)
def test_a_hostile_gate_is_a_wrong_request(tmp_path: Path, value: str) -> None:
    (tmp_path / "gates.toml").write_text(f"[gate]\nmax-kl = {value}")
    with pytest.raises(UsageError):
        gate_of(read_limits(tmp_path / "gates.toml"))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"schema":1,"candidates":[{}]}',
        '{"schema":1,"candidates":[1]}',
        '{"schema":1,"candidates":{"a":1}}',
        '{"schema":1,"candidates":[{"candidate":[]}]}',
        '{"schema":1,"candidates":[{"candidate":"a"}],"image_source":1,"images":1,"environment":[]}',
        "\ud800",
        "9" * 5000,
    ],
)
def test_a_hostile_report_is_a_wrong_request(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError, match="parity report"):
        read_document(tmp_path / "report.json")


@pytest.mark.parametrize("inputs", [[], [helper.make_tensor_value_info("x", 1, [])]])
def test_a_model_without_an_input_for_pictures_is_told(
    tmp_path: Path, inputs: list[onnx.ValueInfoProto]
) -> None:
    node = helper.make_node("RandomUniform", [], ["y"], shape=[1, 5])
    output = helper.make_tensor_value_info("y", 1, [1, 5])
    graph = helper.make_graph([node], "g", inputs, [output])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "x.onnx")
    with pytest.raises(BackendError, match=r"x\.onnx: it has no input for a batch"):
        OnnxClassifier(tmp_path / "x.onnx", PREPROCESSING)
