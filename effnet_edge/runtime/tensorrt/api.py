"""What is used of TensorRT's Python module, for the type checker.

The module is imported by name when it is needed, as there are two of it and mostly neither. These
protocols give what comes of it the types of the real one; tests/tensorrt_api checks them against
the binaries of several versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import tensorrt
    import tensorrt_rtx


class TensorRt(Protocol):
    """Of both libraries."""

    __version__: str
    Builder: type[tensorrt.Builder]
    BuilderFlag: type[tensorrt.BuilderFlag]
    DeviceType: type[tensorrt.DeviceType]
    ExecutionContextAllocationStrategy: type[tensorrt.ExecutionContextAllocationStrategy]
    HardwareCompatibilityLevel: type[tensorrt.HardwareCompatibilityLevel]
    ILogger: type[tensorrt.ILogger]
    IProgressMonitor: type[tensorrt.IProgressMonitor]
    LayerInformationFormat: type[tensorrt.LayerInformationFormat]
    MemoryPoolType: type[tensorrt.MemoryPoolType]
    NetworkDefinitionCreationFlag: type[tensorrt.NetworkDefinitionCreationFlag]
    OnnxParser: type[tensorrt.OnnxParser]
    ProfilingVerbosity: type[tensorrt.ProfilingVerbosity]
    Runtime: type[tensorrt.Runtime]
    TensorIOMode: type[tensorrt.TensorIOMode]

    def nptype(self, trt_type: tensorrt.DataType, /) -> type[np.generic]:
        """The element type in numpy."""


class TensorRtRtx(Protocol):
    """Of TensorRT-RTX alone."""

    ComputeCapability: type[tensorrt_rtx.ComputeCapability]
