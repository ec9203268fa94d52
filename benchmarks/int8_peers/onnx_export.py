"""The FP32 ONNX model that peers which start from ONNX are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.bundle import BatchRange
from effnet_export.onnx_graph import export_onnx
from effnet_export.simplify import simplify

if TYPE_CHECKING:
    import onnx

    from int8_peers.subject import Subject


def exported_onnx(subject: Subject) -> onnx.ModelProto:
    """Simplified; takes `image`, normalized float32 (1, 3, R, R)."""
    exported = export_onnx(
        subject.folded,
        subject.preprocessing,
        input_kind="float32-nchw",
        batch=BatchRange(1, 1, 1),
    )
    return simplify(exported)
