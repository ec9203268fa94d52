"""Models made ready to run, all in the same way: uint8 pictures in, logits out."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime
import openvino

from effnet_edge.pictures.image import normalize
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from effnet_edge.pictures.image import Preprocessing
    from int8_peers.method import Engine

_RUNNER_PRECISIONS = {"f32": "fp32", "bf16": "bf16"}
_OPENVINO_COMPUTE = frozenset({"convolution", "groupconvolution", "fullyconnected", "matmul"})
_KERNEL_PRECISIONS = {"f32": "FP32", "bf16": "BF16", "f16": "FP16", "i8": "INT8", "u8": "INT8"}
_ONNX_FLOAT = frozenset({"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
_ONNX_INTEGER = frozenset({"QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger"})


@dataclass(frozen=True)
class Running:
    """A model that runs.

    Attributes:
        infer: logits, float32 (1, classes), of one picture, uint8 (1, R, R, 3).
        bare: starts an inference on such a picture as the engine takes it: nothing of Python's in
            between. Where the model takes normalized floats, normalizing them is not in it.
        executed: how many convolutions and matrix products ran in which precision.
    """

    infer: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    bare: Callable[[NDArray[np.uint8]], Callable[[], object]]
    executed: dict[str, int]


def open_model(
    engine: Engine, file: Path, hint: str, preprocessing: Preprocessing, threads: int
) -> Running:
    """Load a model on the CPU, for latency.

    Args:
        hint: OpenVINO's INFERENCE_PRECISION_HINT: "f32" or "bf16".
    """
    if engine == "openvino":
        return _open_with_openvino(file, hint, threads)
    return _open_with_onnxruntime(file, preprocessing, threads)


def open_bundle(bundle: Path, hint: str, threads: int) -> Running:
    """Load a bundle for OpenVINO through the runner, as its users do; the rest as `open_model`."""
    runner = EngineRunner.load(bundle, threads=threads, precision=_RUNNER_PRECISIONS[hint])

    def bare(pixels: NDArray[np.uint8]) -> Callable[[], object]:
        return lambda: runner.infer(pixels)

    compiled = _compile(runner.bundle.model_path, hint, threads)
    return Running(runner.infer, bare, _executed_by_openvino(compiled))


def pixels_in(model: openvino.Model, preprocessing: Preprocessing) -> openvino.Model:
    """Put OpenVINO's own normalization before a model that takes float32 NCHW.

    The result takes uint8 NHWC, as our bundles do, so that latencies are of the same job.
    """
    processor = openvino.preprocess.PrePostProcessor(model)
    processor.input().tensor().set_element_type(openvino.Type.u8).set_layout(
        openvino.Layout("NHWC")
    )
    processor.input().model().set_layout(openvino.Layout("NCHW"))
    steps = processor.input().preprocess().convert_element_type(openvino.Type.f32)
    steps.mean([255 * value for value in preprocessing.mean])
    steps.scale([255 * value for value in preprocessing.std])
    return processor.build()


def computes_in_bf16() -> bool:
    """Whether this CPU has BF16 instructions that OpenVINO uses."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _open_with_openvino(file: Path, hint: str, threads: int) -> Running:
    compiled = _compile(file, hint, threads)
    request = compiled.create_infer_request()

    def infer(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = request.infer({0: pixels}, share_inputs=True)[0]
        return logits

    def bare(pixels: NDArray[np.uint8]) -> Callable[[], object]:
        return lambda: request.infer({0: pixels}, share_inputs=True, share_outputs=True)

    return Running(infer, bare, _executed_by_openvino(compiled))


def _compile(file: Path, hint: str, threads: int) -> Any:
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": hint,
    }
    return openvino.Core().compile_model(file, "CPU", config)


def _executed_by_openvino(compiled: Any) -> dict[str, int]:
    """Read from the execution graph: kernels' names end in what they compute in."""
    found: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {key: value.astype(str) for key, value in node.get_rt_info().items()}
        if info.get("layerType", "").lower() in _OPENVINO_COMPUTE:
            kernel = info.get("primitiveType", "").lower().rpartition("_")[2]
            precision = kernel if kernel in _KERNEL_PRECISIONS else info["runtimePrecision"]
            found[_KERNEL_PRECISIONS.get(precision, precision)] += 1
    return dict(found)


def _open_with_onnxruntime(file: Path, preprocessing: Preprocessing, threads: int) -> Running:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = _session(file, options)
    model_input = session.get_inputs()[0]

    def converted(pixels: NDArray[np.uint8]) -> NDArray[np.uint8 | np.float32]:
        takes_pixels = model_input.type == "tensor(uint8)"
        return pixels if takes_pixels else normalize(pixels, preprocessing)

    def infer(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(None, {model_input.name: converted(pixels)})[0]
        return logits

    def bare(pixels: NDArray[np.uint8]) -> Callable[[], object]:
        feed = {model_input.name: converted(pixels)}
        return lambda: session.run(None, feed)

    return Running(infer, bare, _executed_by_onnxruntime(file))


def _session(file: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    options.log_severity_level = 3
    # A session that spins after its turn would take the cores from the next one.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _executed_by_onnxruntime(file: Path) -> dict[str, int]:
    """Counted in the graph that onnxruntime's optimizer leaves."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        _session(file, options)
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    found = {
        "INT8": sum(node.op_type in _ONNX_INTEGER for node in nodes),
        "FP32": sum(node.op_type in _ONNX_FLOAT for node in nodes),
    }
    return {precision: count for precision, count in found.items() if count}
