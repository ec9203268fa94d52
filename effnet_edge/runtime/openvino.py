"""Engines of OpenVINO."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.machine import (
    NO_FP16_ON_ARM,
    is_arm_without_fp16,
    is_x86,
    setting_without_vnni,
)
from effnet_edge.runtime.backend import EngineSpec, load_error, most_common_precision
from effnet_edge.runtime.demand.openvino_layers import refuse_foreign_ir
from effnet_edge.runtime.demand.openvino_steps import refuse_greedy_openvino
from effnet_edge.runtime.interface import Interface, Span, Tensor
from effnet_edge.runtime.openvino_core import import_openvino, openvino_core
from effnet_edge.runtime.openvino_devices import device_named, is_virtual
from effnet_edge.runtime.openvino_engines import (
    CompiledEngine,
    SingleImageEngine,
    make_single,
    needs_single_image_engine,
)
from effnet_edge.runtime.openvino_gates import with_converted_gates

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from effnet_edge.runtime.layer_times import LayerTime

_IR = ".xml"
_NUMPY_TYPES = {"u8": "uint8", "f32": "float32", "f16": "float16"}
_ELEMENT_TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
_COMPUTE_LAYERS = frozenset({"convolution", "groupconvolution", "fullyconnected", "matmul"})
_CAPABILITIES = "OPTIMIZATION_CAPABILITIES"
_KERNEL_TYPES = frozenset({"f32", "f16", "bf16", "i8", "u8"})


class OpenVinoBackend:
    """A compiled model, and a second one for single images where the first gets them wrong."""

    takes_device_arrays = False

    def __init__(self, spec: EngineSpec) -> None:
        """Compile the model; see `load_backend` for the errors."""
        self._spec = spec
        model = _read(spec)
        spec.check(_interface(model, spec))
        self._compiled = compile_model(model, spec)
        self._engine = CompiledEngine(self._compiled)
        self._single: SingleImageEngine | None = None
        if needs_single_image_engine(model, spec.model_precision):
            self._single = SingleImageEngine(model, lambda single: compile_model(single, spec))

    @property
    def device(self) -> str:
        """The device or devices that run the model, such as "CPU"."""
        return ",".join(self._compiled.get_property("EXECUTION_DEVICES"))

    @property
    def parallelism(self) -> int:
        """The plugin's own figure: 1 for latency, one a stream for throughput."""
        return int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    @property
    def execution_precision(self) -> str:
        """Read from the compiled graph's nodes: the plugin need not follow its hint."""
        return compiled_precision(self._compiled)

    def infer(self, batch: npt.NDArray[np.uint8 | np.float32]) -> npt.NDArray[np.float32]:
        """Run one batch; OpenVINO reads `batch` in place and copies the logits out."""
        if self._single is not None and len(batch) == 1:
            return self._single.infer(batch)
        return self._engine.infer(batch)

    def layer_times(self, batch: npt.NDArray[np.uint8 | np.float32], runs: int) -> list[LayerTime]:
        """Time every node, by counters that the engine itself goes without."""
        model = _read(self._spec)
        if self._single is not None and len(batch) == 1:
            make_single(model)
        compiled = compile_model(model, self._spec, PERF_COUNT=True)
        return CompiledEngine(compiled).layer_times(batch, runs)

    def close(self) -> None:
        """Release the compiled models and their requests."""
        self._single = None
        del self._engine, self._compiled


def _read(spec: EngineSpec) -> Any:
    openvino = import_openvino()
    graph, weights = spec.read(spec.model_path), b""
    if spec.model_path.suffix == _IR:
        with suppress(FileNotFoundError):
            weights = spec.read(spec.model_path.with_suffix(".bin"))
    if spec.interface is not None:
        refuse_foreign_ir(graph, spec.model_path)
    try:
        model = openvino_core().read_model(graph, weights)
    except RuntimeError as error:
        raise load_error(spec, "OpenVINO", openvino.__version__, error) from error
    if spec.interface is not None:
        batch = spec.interface.inputs[0].shape[0].least
        refuse_greedy_openvino(model, len(weights), batch, spec.model_path)
    return model


def _interface(model: Any, spec: EngineSpec) -> Interface:
    inputs = [_tensor(port) for port in model.inputs]
    if inputs and inputs[0].shape and needs_single_image_engine(model, spec.model_precision):
        images, *image = inputs[0].shape
        inputs[0] = replace(inputs[0], shape=(Span(1, images.most), *image))
    return Interface(tuple(inputs), tuple(_tensor(port) for port in model.outputs))


def _tensor(port: Any) -> Tensor:
    element = port.get_element_type().get_type_name()
    rank_is_known = port.get_partial_shape().rank.is_static
    return Tensor(
        frozenset(port.get_names()),
        _NUMPY_TYPES.get(element, element),
        tuple(map(_span, port.get_partial_shape())) if rank_is_known else (),
    )


def _span(size: Any) -> Span:
    most = int(size.get_max_length())
    return Span(int(size.get_min_length()), most if most > 0 else None)


def compile_model(model: Any, spec: EngineSpec, **properties: bool) -> Any:
    """An `openvino.CompiledModel` of an `openvino.Model`, for the device of the spec.

    `properties` are OpenVINO's own, beside those that the spec asks for.

    Raises:
        UsageError: this machine has no such device, or the device not this precision.
        BackendError: OpenVINO refuses the model; the text names the spec's file.
    """
    openvino, core = import_openvino(), openvino_core()
    device = device_named(spec.device, core.available_devices)
    if device == "CPU" or is_virtual(device):
        spec.refuse_overflow(setting_without_vnni() if is_x86() else None)
    try:
        if device == "CPU" and is_x86():
            model = with_converted_gates(model)
        compiled = core.compile_model(model, device, {**_config(spec), **properties})
    except RuntimeError as error:
        if spec.model_precision == "int8" and is_arm_without_fp16():
            raise BackendError(f"{spec.model_path}: cannot be loaded: {NO_FP16_ON_ARM}") from error
        raise load_error(spec, "OpenVINO", openvino.__version__, error) from error
    if spec.precision is not None:
        refuse = _refuse_lacking_precision if is_virtual(device) else _refuse_other_precision
        refuse(compiled, spec.precision, device)
    if spec.streams is not None:
        _refuse_other_streams(compiled, spec.streams, device)
    return compiled


def compiled_precision(compiled: Any) -> str:
    """What most convolutions and matrix products of an `openvino.CompiledModel` run in."""
    return most_common_precision(_executed_types(compiled))


def executed_precision(info: Any) -> str:
    """What a node of a compiled graph runs in, by its `rt_info`: "FP32", "BF16", "INT8", …."""
    return most_common_precision([_executed_type(info)])


def _config(spec: EngineSpec) -> dict[str, str | int]:
    config: dict[str, str | int] = {
        "PERFORMANCE_HINT": "THROUGHPUT" if spec.throughput else "LATENCY"
    }
    if spec.streams is not None:
        config["NUM_STREAMS"] = spec.streams
    if spec.threads is not None:
        config["INFERENCE_NUM_THREADS"] = spec.threads
    if spec.precision is not None:
        config["INFERENCE_PRECISION_HINT"] = _ELEMENT_TYPES[spec.precision]
    return config


def _refuse_other_precision(compiled: Any, precision: str, device: str) -> None:
    """A plugin that cannot run a precision falls back silently; its property tells."""
    chosen = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if chosen != _ELEMENT_TYPES[precision]:
        raise UsageError(
            f"precision {precision!r}: OpenVINO's {device} here would run {chosen} instead: "
            "leave the precision out, or choose another"
        )


def _refuse_lacking_precision(compiled: Any, precision: str, device: str) -> None:
    """What chooses among devices does not tell its precision, but which it has chosen."""
    for name in compiled.get_property("EXECUTION_DEVICES"):
        chosen = name.strip("()")  # in brackets while another is still being loaded
        if precision.upper() not in openvino_core().get_property(chosen, _CAPABILITIES):
            raise UsageError(
                f"precision {precision!r}: OpenVINO's {device} here has chosen {chosen}, which "
                "cannot run it: leave the precision out, or choose another"
            )


def _refuse_other_streams(compiled: Any, streams: int, device: str) -> None:
    """The CPU plugin makes no more of them than it has threads, and does not say so."""
    told = "OPTIMAL_NUMBER_OF_INFER_REQUESTS" if is_virtual(device) else "NUM_STREAMS"
    made = int(compiled.get_property(told))
    if made < streams or (made > streams and not is_virtual(device)):
        raise UsageError(
            f"streams {streams}: OpenVINO's {device} here makes {made} of them: ask for "
            "so many, or give it other threads"
        )


def _executed_types(compiled: Any) -> list[str]:
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return [
        _executed_type(info)
        for info in infos
        if "layerType" in info and info["layerType"].astype(str).lower() in _COMPUTE_LAYERS
    ]


def _executed_type(info: Any) -> str:
    """The type at the end of the kernel's name, such as "brgconv_avx512_1x1_f32".

    `runtimePrecision` tells the first input's or the weights' storage instead: "f16" for a
    convolution that runs in FP32 on weights that are stored in FP16.
    """
    kernel = info["primitiveType"].astype(str).lower() if "primitiveType" in info else ""
    kernel_type: str = kernel.rpartition("_")[2]
    if kernel_type in _KERNEL_TYPES:
        return kernel_type
    return str(info["runtimePrecision"].astype(str)) if "runtimePrecision" in info else ""
