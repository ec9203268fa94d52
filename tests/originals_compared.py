"""Checkpoints of other packages, and what comparing them with their originals gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from original_networks import SIDE
from safetensors.torch import save_file

from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_export.against import compare_with_original

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from effnet_edge.bundle import StageParity

PHOTOS = EmbeddedPhotos(4)


def compared(path: Path, origin: str, **asked: Any) -> StageParity:
    request = NetworkRequest("b0", str(path), resolution=SIDE, **asked)
    return compare_with_original(origin, request, load_source(request), PHOTOS)


def saved(model: nn.Module, folder: Path, arguments: dict[str, Any] | None = None) -> Path:
    """A checkpoint; with a timm config of those arguments where some are given."""
    path = folder / "model.safetensors"
    save_file(model.state_dict(), path)
    if arguments is not None:
        config = {"architecture": "efficientnet_b0", "model_args": arguments, "pretrained_cfg": {}}
        (folder / "config.json").write_text(json.dumps(config))
    return path
