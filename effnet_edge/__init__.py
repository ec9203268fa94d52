"""effnet-edge: EfficientNets from PyTorch to an edge engine, proven to be the same model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.errors import (
    BackendError,
    BundleError,
    EffnetEdgeError,
    ImageError,
    NotFiniteError,
    UsageError,
)

if TYPE_CHECKING:
    from effnet_edge.pictures.video import Frame, frames
    from effnet_edge.runtime import EngineRunner, Estimate, Prediction

__version__ = "0.1.0"
__all__ = [
    "BackendError",
    "BundleError",
    "EffnetEdgeError",
    "EngineRunner",
    "Estimate",
    "Frame",
    "ImageError",
    "NotFiniteError",
    "Prediction",
    "UsageError",
    "__version__",
    "frames",
]


def __getattr__(name: str) -> object:
    # The runner pulls in numpy and pillow: `import effnet_edge` stays instant without it (PEP 562).
    if name in ("EngineRunner", "Estimate", "Prediction"):
        from effnet_edge import runtime

        return getattr(runtime, name)
    if name in ("Frame", "frames"):
        from effnet_edge.pictures import video

        return getattr(video, name)
    raise AttributeError(f"module 'effnet_edge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
