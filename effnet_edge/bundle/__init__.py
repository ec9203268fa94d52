"""A bundle: one exported model as a directory of model files, `labels.json` and `manifest.json`."""

from effnet_edge.bundle.manifest import (
    BatchRange,
    Calibration,
    EngineRecord,
    FileRecord,
    InputSpec,
    Manifest,
    Measured,
    OutputSpec,
    StageParity,
    utc_now,
)
from effnet_edge.bundle.reading import Bundle
from effnet_edge.bundle.writing import BundleWriter

__all__ = [
    "BatchRange",
    "Bundle",
    "BundleWriter",
    "Calibration",
    "EngineRecord",
    "FileRecord",
    "InputSpec",
    "Manifest",
    "Measured",
    "OutputSpec",
    "StageParity",
    "utc_now",
]
