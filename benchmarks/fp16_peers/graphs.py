"""The float32 graphs that every method types: B0 as it is, with planted faults, and in INT8."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import version_converter

from effnet_calibration.calibrate import calibrate
from effnet_calibration.equalization import equalize_stream
from effnet_calibration.path import NetworkPath
from effnet_calibration.quantized import apply
from effnet_calibration.schemes import SYMMETRIC_INT8_DENSE
from effnet_edge.bundle import BatchRange
from effnet_edge.pictures.sets import ImageSet
from effnet_export.fp16 import OPSET
from effnet_export.onnx_graph import export_onnx
from effnet_export.qdq import quantize_graph
from effnet_export.simplify import simplify
from effnet_export.tensorrt_graph import cast_pixels_first

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from int8_peers.subject import Subject

    from effnet_edge.model.network import EfficientNet
    from effnet_export.deployed import InputKind

# All peers take it; not all take pixels, which the exported graph has by itself.
FLOATS: InputKind = "float32-nchw"

# The residual stream that the faults are planted in.
STAGE = 1


@dataclass(frozen=True)
class Graph:
    """What is to be typed.

    Attributes:
        title: of its table.
        make: exports it.
    """

    title: str
    make: Callable[[Subject], onnx.ModelProto]


def _scaled(exponent: int) -> Callable[[Subject], onnx.ModelProto]:
    """A stage's residual stream times 2^exponent, and its readers' weights by as much: exact."""

    def make(subject: Subject) -> onnx.ModelProto:
        network = copy.deepcopy(subject.folded)
        path = NetworkPath.of(network)
        projection = path.stream_projections(STAGE)[0]
        channels = projection.module(network).weight.shape[0]
        equalize_stream(network, path, projection, (2.0**exponent,) * channels)
        return _exported(network, subject, FLOATS)

    return make


def _int8(subject: Subject) -> onnx.ModelProto:
    pictures = ImageSet.from_folder(subject.calibration.path)
    scheme = SYMMETRIC_INT8_DENSE
    table = calibrate(subject.folded, pictures, subject.preprocessing, (scheme,))
    quantized = apply(subject.folded, table, scheme)
    graph = quantize_graph(_exported(quantized.network, subject, FLOATS), quantized)
    # Not every peer raises it to where the pairs take FP16.
    return version_converter.convert_version(graph, OPSET)


def _exported(
    network: EfficientNet, subject: Subject, input_kind: InputKind = "uint8-nhwc"
) -> onnx.ModelProto:
    """As `--target tensorrt` does before it types."""
    exported = export_onnx(
        network, subject.preprocessing, input_kind=input_kind, batch=BatchRange(1, 1, 1)
    )
    return cast_pixels_first(simplify(exported))


GRAPHS = {
    "b0": Graph("B0, pixels", lambda subject: _exported(subject.folded, subject)),
    "float-input": Graph(
        "B0, normalized input",
        lambda subject: _exported(subject.folded, subject, FLOATS),
    ),
    "harmless": Graph(
        f"B0, normalized input, the residual stream of stage {STAGE} times 2^7", _scaled(7)
    ),
    "overflow": Graph(
        f"B0, normalized input, the residual stream of stage {STAGE} times 2^11", _scaled(11)
    ),
    "underflow": Graph(
        f"B0, normalized input, the residual stream of stage {STAGE} times 2^−16", _scaled(-16)
    ),
    "int8": Graph(f"B0 in INT8 ({SYMMETRIC_INT8_DENSE.name}), normalized input", _int8),
}
