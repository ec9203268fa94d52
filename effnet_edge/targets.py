"""The engines that a bundle is made for and runs on: one row a target, and nothing imported."""

from __future__ import annotations

from dataclasses import dataclass

from effnet_edge.errors import UsageError
from effnet_edge.extras import install_hint


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of engine. What writes its models is the row of this name in `effnet_export.targets`.

    Attributes:
        name: what `--target` and the manifest call it, and the export stage that writes it.
        title: what people call it.
        package: the distribution whose version counts.
        library: the Python module that comes with it.
        runner: where its `Backend` is made from an `EngineSpec`, as "module:name".
        precisions: those that it can be exported in, the default first.
        refusal: why not in another one, and what to choose.
        on_gpu: runs on an NVIDIA GPU; the others take x86 processors as they are, VNNI or not.
        built_on_device: the bundle holds a portable, strongly typed graph, from which
            `effnet-edge build` makes the engine.
        overflows: its INT8 kernels for x86 without VNNI overflow where weights have 8 bits.
        rounds_outputs: rounds what every operator gives in INT8, and not just what convolutions
            read: single tensors cannot be left in 16 bit.
        faster_hard_swish: the precisions in which a hard-swish takes it less time than a SiLU with
            its exponential.
        chooses_precision: computes in another precision than it was exported in, if it is asked.
        has_streams: answers several batches at once, each on cores of its own, where it is loaded
            for throughput.
        builds_ahead: the engine is compiled for any generations of GPUs, on a machine without one;
            others are for the very GPU that compiled them.
        install_note: where it comes from besides its extra.
        extra: what installs it, where that is not called as the package is.
        probe: the model in `effnet_edge/data` that `effnet-edge doctor` tries it with.
    """

    name: str
    title: str
    package: str
    library: str
    runner: str
    precisions: tuple[str, ...]
    refusal: str
    on_gpu: bool = False
    built_on_device: bool = False
    overflows: bool = False
    rounds_outputs: bool = False
    faster_hard_swish: tuple[str, ...] = ()
    chooses_precision: bool = False
    has_streams: bool = False
    builds_ahead: bool = False
    install_note: str = ""
    extra: str = ""
    probe: str = "probe.onnx"

    @property
    def install_hint(self) -> str:
        """The command that installs its library."""
        return install_hint(self.extra or self.package)

    def precision(self, asked: str | None) -> str:
        """The precision to export in: the one asked for, or the default for None.

        Raises:
            UsageError: the target does not have it.
        """
        if asked is None:
            return self.precisions[0]
        if asked not in self.precisions:
            raise UsageError(f"--{asked} with --target {self.name}: {self.refusal}")
        return asked


_JETPACK = "on a Jetson it comes with JetPack"

_ROWS = (
    Target(
        name="openvino",
        title="OpenVINO",
        package="openvino",
        library="openvino",
        runner="effnet_edge.runtime.openvino:OpenVinoBackend",
        precisions=("fp16", "fp32", "int8"),
        refusal="choose --fp16 (weights in FP16, the device's fastest arithmetic) or --fp32",
        overflows=True,
        faster_hard_swish=("fp16", "fp32", "int8"),
        chooses_precision=True,
        has_streams=True,
    ),
    Target(
        name="onnxruntime",
        title="ONNX Runtime",
        package="onnxruntime",
        library="onnxruntime",
        runner="effnet_edge.runtime.onnxruntime:OnnxRuntimeBackend",
        precisions=("fp32", "int8"),
        refusal="onnxruntime's CPU provider has no FP16 convolutions: use --fp32 or --int8",
        overflows=True,
        has_streams=True,
    ),
    Target(
        name="litert",
        title="LiteRT",
        package="ai-edge-litert",
        library="ai_edge_litert",
        runner="effnet_edge.runtime.litert:LiteRtBackend",
        precisions=("fp32", "fp16", "int8"),
        refusal="choose --fp32, --fp16 or --int8",
        rounds_outputs=True,
        faster_hard_swish=("fp32", "fp16", "int8"),
        extra="litert",
        probe="probe.tflite",
    ),
    Target(
        name="tensorrt",
        title="TensorRT",
        package="tensorrt",
        library="tensorrt",
        runner="effnet_edge.runtime.tensorrt.backend:TensorRtBackend",
        precisions=("fp16", "fp32", "int8"),
        refusal="choose --fp16, --int8 or --fp32",
        on_gpu=True,
        built_on_device=True,
        install_note=_JETPACK,
    ),
    Target(
        name="tensorrt-rtx",
        title="TensorRT-RTX",
        package="tensorrt-rtx",
        library="tensorrt_rtx",
        runner="effnet_edge.runtime.tensorrt.backend:TensorRtRtxBackend",
        precisions=("fp16", "fp32", "int8"),
        refusal="choose --fp16, --int8 or --fp32",
        on_gpu=True,
        built_on_device=True,
        builds_ahead=True,
        install_note=_JETPACK,
    ),
)

TARGETS = {row.name: row for row in _ROWS}
DEFAULT_TARGET = "openvino"


def with_faster_hard_swish(precision: str) -> list[str]:
    """The names of the targets for which a hard-swish is faster than a SiLU in that precision."""
    return [row.name for row in _ROWS if precision in row.faster_hard_swish]


def built_on_device() -> list[str]:
    """The names of the targets whose engines `effnet-edge build` makes."""
    return [row.name for row in _ROWS if row.built_on_device]
