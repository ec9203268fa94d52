"""Tiny bundles with the answers of a network, as an export writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.bundle import Bundle, BundleWriter
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_export.answering import write_answers

if TYPE_CHECKING:
    from pathlib import Path

    import onnx


def put_answers(path: Path, network: onnx.ModelProto) -> Bundle:
    """Write the bundle of `path` anew, held to what `network` answers."""
    bundle = Bundle.load(path)
    manifest = bundle.manifest
    classifier = OnnxClassifier(network, manifest.preprocessing)
    with BundleWriter(path) as writer:
        for name in manifest.files.keys() - {manifest.labels}:
            (writer.staging / name).write_bytes(bundle.read(name))
        graphs = {manifest.model: (manifest.precision, classifier)}
        answered = write_answers(manifest, classifier, graphs, writer.staging)
        return writer.commit(answered, bundle.labels)
