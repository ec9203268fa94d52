"""A bundle: one exported model as a directory of model files, `labels.json` and `manifest.json`."""

from effnet_edge.bundle.choice import Choice, Contender, Graph, Latency
from effnet_edge.bundle.manifest import (
    BatchRange,
    EngineRecord,
    FileRecord,
    InputSpec,
    Manifest,
    OutputSpec,
    utc_now,
)
from effnet_edge.bundle.proof import Calibration, EngineCheck, Measured, StageParity
from effnet_edge.bundle.reading import Bundle
from effnet_edge.bundle.writing import BundleWriter

__all__ = [
    "BatchRange",
    "Bundle",
    "BundleWriter",
    "Calibration",
    "Choice",
    "Contender",
    "EngineCheck",
    "EngineRecord",
    "FileRecord",
    "Graph",
    "InputSpec",
    "Latency",
    "Manifest",
    "Measured",
    "OutputSpec",
    "StageParity",
    "utc_now",
]
