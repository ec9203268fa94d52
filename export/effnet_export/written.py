"""A file that a target was given, opened beside the graph that it was converted from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.model.request import NetworkRequest
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.parity.models.reading import AS_TOLD
from effnet_export.model_files import FileModel, Openings, kind_of
from effnet_export.specs import DEFAULT_VARIANT

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from effnet_edge.pictures.image import Preprocessing


def opened_pair(
    graph: onnx.ModelProto, file: Path, precision: str, preprocessing: Preprocessing
) -> tuple[OnnxClassifier, FileModel]:
    """Both as models that show their tensors.

    Args:
        precision: that the file was written for; FP32 is then what it runs in.
    """
    kind = kind_of(file)
    assert kind is not None
    asked = precision if precision == "fp32" else None
    openings = Openings(NetworkRequest(DEFAULT_VARIANT), threads=1, precision=asked)
    written = kind.open(file, preprocessing, openings, AS_TOLD, None)
    return OnnxClassifier(graph, preprocessing, "ONNX"), written
