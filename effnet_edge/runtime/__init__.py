"""Running bundles: `EngineRunner` over one module a backend; no backend is imported until used."""

from __future__ import annotations

from effnet_edge.runtime.doctor import BackendStatus, available_backends
from effnet_edge.runtime.predictions import Estimate, Prediction
from effnet_edge.runtime.runner import EngineRunner

__all__ = ["BackendStatus", "EngineRunner", "Estimate", "Prediction", "available_backends"]
