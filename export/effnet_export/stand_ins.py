"""What is looked into where an engine's or a network's own tensors do not correspond."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from effnet_edge.bundle import Bundle
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.parity.inside.tracing import Traceable
    from effnet_edge.parity.models.onnx import OnnxClassifier


def is_compiled(bundle: Bundle) -> bool:
    """Whether its engine is made on the device, so that here there may be its graph alone."""
    return TARGETS[bundle.manifest.target].built_on_device


def simulation(bundle: Bundle) -> OnnxClassifier:
    """The bundle's graph, with the rounding of its types: also shows the tensors inside."""
    from effnet_edge.graphs.files import parsed_onnx
    from effnet_edge.parity.models.onnx import OnnxClassifier

    manifest, name = bundle.manifest, bundle.name
    graph = parsed_onnx(bundle.read(manifest.model), bundle.model_path)
    return OnnxClassifier(graph, manifest.preprocessing, name, rounding=True)


def calibrated_like(network: EfficientNet, bundle: Bundle) -> EfficientNet:
    """The folded network with all that the bundle's calibration decided, and nothing rounded."""
    from effnet_calibration.quantized import unrounded
    from effnet_calibration.table import CalibrationTable

    calibration = bundle.manifest.calibration
    assert calibration is not None
    table = CalibrationTable.of_bundle(bundle)
    return unrounded(network, table.quantization(calibration.scheme).uncorrected())


def named_alike(reference: Traceable, candidate: Traceable) -> tuple[Traceable, Traceable]:
    """Rename the tensors of the one that is a foreign ONNX model."""
    from effnet_edge.parity.inside.alignment import shares_layers
    from effnet_edge.parity.models.onnx import OnnxClassifier

    if shares_layers(reference, candidate):
        return reference, candidate
    if isinstance(candidate, OnnxClassifier):
        return reference, candidate.named_like(reference)
    if isinstance(reference, OnnxClassifier):
        return reference.named_like(candidate), candidate
    return reference, candidate
