"""The manifest of a bundle that is being made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_calibration.path import NetworkPath
from effnet_calibration.quantization import ACTIVATIONS
from effnet_calibration.rounded_hard_swish import HARD_SWISHES
from effnet_edge import __version__
from effnet_edge.bundle import Calibration, InputSpec, Manifest, OutputSpec, utc_now
from effnet_edge.extras import installed_versions
from effnet_edge.machine import Machine
from effnet_edge.outputs import OUTPUT_NAMES
from effnet_export.onnx_graph import INPUT_NAME

if TYPE_CHECKING:
    from effnet_calibration.table import CalibrationTable
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.model.source import Source
    from effnet_export.request import ExportRequest

CALIBRATION_FILE = "calibration.json"
TOOLS = (
    *("torch", "onnx", "onnxscript", "onnxsim", "numpy", "pillow"),
    *("onnxruntime", "openvino", "ai-edge-litert"),
)


def draft_manifest(
    request: ExportRequest,
    source: Source,
    model_file: str,
    gate_pictures: str,
    table: CalibrationTable | None,
) -> Manifest:
    """All but the results of the gates, the engines and the files.

    Args:
        gate_pictures: which ones the gates compared on, in words.
        table: what the network was changed and quantized by, in `CALIBRATION_FILE`.
    """
    network, preprocessing = source.network, source.preprocessing
    size, channels = preprocessing.resolution, preprocessing.channels
    dtype, layout = request.input_kind.split("-")
    kind = network.output_kind
    return Manifest(
        created=utc_now(),
        variant=network.variant.name,
        target=request.target,
        precision=request.chosen_precision,
        model=model_file,
        input=InputSpec(INPUT_NAME, dtype, layout.upper(), size.height, size.width, channels),
        batch=request.batch,
        output=OutputSpec(OUTPUT_NAMES[kind], network.output_size, kind),
        preprocessing=preprocessing,
        padding=network.padding,
        batch_norm_eps=network.batch_norm_eps,
        pooling=network.pooling,
        activation=network.activation,
        tools=tool_versions(),
        machine=Machine.here(),
        weights=source.weights,
        parity_images=gate_pictures,
        calibration=_calibration(table, request.scheme.name, network) if table else None,
    )


def _calibration(table: CalibrationTable, scheme: str, network: EfficientNet) -> Calibration:
    images, quantization = table.images, table.quantization(scheme)
    replaced = {**quantization.changes(ACTIVATIONS), **quantization.changes(HARD_SWISHES)}
    return Calibration(
        table=CALIBRATION_FILE,
        scheme=scheme,
        source=images.source,
        size=images.size,
        sha256=images.sha256,
        kept=quantization.kept,
        fast_activations=tuple(name for name in NetworkPath.of(network).names if name in replaced),
    )


def tool_versions() -> dict[str, str]:
    """effnet-edge's own version and those of the libraries that had a hand in the model."""
    return {"effnet-edge": __version__, **installed_versions(TOOLS)}
