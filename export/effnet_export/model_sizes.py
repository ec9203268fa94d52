"""How large a compared model is: the files that hold its graph and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnet_edge.bundle import Bundle
    from effnet_edge.parity.comparison import Classifier


def model_bytes(spec: str, model: Classifier, bundle: Bundle | None) -> int | None:
    """Of a bundle's model without labels and calibration, of a model file with its weights.

    Of a PyTorch network it is what its tensors take; None where nobody knows.

    Args:
        spec: as the model was named on the command line.
        bundle: what the model is, if it is one.
    """
    if bundle is not None:
        stem = Path(bundle.manifest.model).stem
        files = bundle.manifest.files.items()
        return sum(file.bytes for name, file in files if Path(name).stem.split(".")[0] == stem)
    in_memory: int | None = getattr(model, "model_bytes", None)
    if in_memory is not None:
        return in_memory
    path = Path(spec)
    files_of = {".xml": _files_of_ir, ".onnx": _files_of_onnx}.get(path.suffix)
    if files_of is None:
        return None
    return sum(file.stat().st_size for file in files_of(path) if file.is_file())


def _files_of_ir(path: Path) -> set[Path]:
    return {path, path.with_suffix(".bin")}


def _files_of_onnx(path: Path) -> set[Path]:
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    entries = (entry for tensor in graph.initializer for entry in tensor.external_data)
    weights = {path.parent / entry.value for entry in entries if entry.key == "location"}
    return {path, *weights}
