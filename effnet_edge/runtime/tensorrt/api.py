"""What is used of TensorRT's Python module, for the type checker.

The module is imported by name when it is needed, as there are two of it and mostly neither. These
protocols give what comes of it the types of the real one; tests/tensorrt_api checks them against
the binaries of several versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import tensorrt
    import tensorrt_rtx


class TensorRt(Protocol):
    """Of both libraries."""

    __version__: str
    Builder: type[tensorrt.Builder]
    BuilderFlag: type[tensorrt.BuilderFlag]
    DeviceType: type[tensorrt.DeviceType]
    HardwareCompatibilityLevel: type[tensorrt.HardwareCompatibilityLevel]
    ILogger: type[tensorrt.ILogger]
    IProgressMonitor: type[tensorrt.IProgressMonitor]
    MemoryPoolType: type[tensorrt.MemoryPoolType]
    NetworkDefinitionCreationFlag: type[tensorrt.NetworkDefinitionCreationFlag]
    OnnxParser: type[tensorrt.OnnxParser]


class TensorRtRtx(Protocol):
    """Of TensorRT-RTX alone."""

    ComputeCapability: type[tensorrt_rtx.ComputeCapability]
