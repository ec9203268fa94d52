"""ONNX files that are broken in one way each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from tiny_bundles import tiny_model

if TYPE_CHECKING:
    from pathlib import Path


def with_weights_beside(path: Path) -> Path:
    """A sound model; its weights are in `weights.data` in the same folder."""
    onnx.save_model(
        tiny_model(),
        path,
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    return path


def without_its_weights(path: Path) -> None:
    with_weights_beside(path).with_name("weights.data").unlink()


def with_half_of_its_weights(path: Path) -> None:
    weights = with_weights_beside(path).with_name("weights.data")
    weights.write_bytes(weights.read_bytes()[:8])


def truncated(path: Path) -> None:
    whole = tiny_model().SerializeToString()
    path.write_bytes(whole[: len(whole) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("<html>not found</html>\n" * 5)


def of_an_unknown_operator(path: Path) -> None:
    model = tiny_model()
    model.graph.node[2].op_type = "Nonsense"
    onnx.save(model, path)


def of_a_later_opset(path: Path) -> None:
    model = tiny_model()
    model.opset_import[0].version = 99
    onnx.save(model, path)


def of_a_later_format(path: Path) -> None:
    model = tiny_model()
    model.ir_version = 99
    onnx.save(model, path)


def without_inputs(path: Path) -> None:
    model = tiny_model()
    del model.graph.input[:]
    onnx.save(model, path)


UNREADABLE = (without_its_weights, with_half_of_its_weights, truncated, empty, text)
REFUSED = (of_an_unknown_operator, of_a_later_opset, of_a_later_format, without_inputs)
