"""The trained B0 as an ONNX graph at a small size, exported once a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from once import made_once

from effnet_edge.bundle import BatchRange
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_export.onnx_graph import export_onnx

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

RESOLUTION = 64


def exported_b0(factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """Before simplification; uint8 NHWC, 1 to 16 pictures of `RESOLUTION` px."""

    def export(folder: Path) -> None:
        source = load_source(NetworkRequest("b0", resolution=RESOLUTION))
        onnx.save(
            export_onnx(
                fold_batch_norm(source.network),
                source.preprocessing,
                input_kind="uint8-nhwc",
                batch=BatchRange(1, 2, 16),
            ),
            folder / "b0.onnx",
        )

    return onnx.load(made_once(factory, "exported-b0", export, "b0.onnx"))
