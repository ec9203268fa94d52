"""How large a compared model is: the files that hold its graph and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from effnet_export.model_files import kind_of
from effnet_export.specs import is_served

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
    kind = None if is_served(spec) else kind_of(path)
    if kind is None:
        return None
    return sum(file.stat().st_size for file in kind.files(path) if file.is_file())
