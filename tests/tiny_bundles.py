"""Small real bundles for tests: a network of a few weights, made with onnx alone."""

from __future__ import annotations

import io
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fake_tensorrt
import gpu_or_fake
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from effnet_edge.bundle import (
    BatchRange,
    BundleWriter,
    EngineRecord,
    InputSpec,
    Manifest,
    OutputSpec,
    utc_now,
)
from effnet_edge.labels import Label
from effnet_edge.machine import Machine, int8_overflows
from effnet_edge.model.provenance import Weights
from effnet_edge.pictures.image import Preprocessing
from effnet_edge.runtime.tensorrt.build import build_engine
from effnet_export.litert.writing import litert_file

if TYPE_CHECKING:
    import numpy.typing as npt

SIDE = 8
CLASSES = 5
PREPROCESSING = Preprocessing(SIDE, 0.875, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MODEL_FILES = {"openvino": "model.xml", "litert": "model.tflite"}
LABELS = [Label(f"animal {i}", f"n{i:08}") for i in range(CLASSES)]


def manifest(**changes: Any) -> Manifest:
    """A valid manifest of an OpenVINO bundle, with `changes`."""
    plain = Manifest(
        created=utc_now(),
        variant="b0",
        target="openvino",
        precision="fp32",
        model="model.xml",
        input=InputSpec("pixels", "uint8", "NHWC", SIDE, SIDE, 3),
        batch=BatchRange(1, 1, 1),
        output=OutputSpec("logits", CLASSES),
        preprocessing=PREPROCESSING,
        tools={"openvino": "2025.0"},
        machine=Machine.here(),
        weights=Weights("test", "made up", "0" * 64, None),
    )
    return replace(plain, **changes)


def tiny_model(dtype: str = "uint8", batch: int | str = 1) -> onnx.ModelProto:
    """Pixels → convolution → ReLU → mean → dense → logits, with weights from a fixed seed."""
    random = np.random.default_rng(0)
    constants = {
        "kernel": random.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "dense": random.normal(size=(8, CLASSES)).astype(np.float32),
        "bias": random.normal(size=CLASSES).astype(np.float32),
        "scale": np.float32(1 / 255),
    }
    nodes, shape = [], [batch, 3, SIDE, SIDE]
    if dtype == "uint8":
        shape = [batch, SIDE, SIDE, 3]
        nodes = [
            helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["values"], perm=[0, 3, 1, 2]),
        ]
    values = "pixels" if dtype == "float32" else "values"
    nodes += [
        helper.make_node("Conv", [values, "kernel"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("ReduceMean", ["relu"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["mean", "dense", "bias"], ["logits"]),
    ]
    element = TensorProto.UINT8 if dtype == "uint8" else TensorProto.FLOAT
    return _checked(nodes, element, shape, [batch, CLASSES], constants)


def quantized_model(folder: Path, batch: int | str = 1) -> onnx.ModelProto:
    """The tiny model in INT8 with Q/DQ pairs, by ONNX Runtime's own quantizer; uses `folder`.

    In the form that TensorRT takes, too: zero points of 0, and biases in floating point. Its
    weights have 7 bits where the processor loses large sums of INT8 products.
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        batches = iter(np.random.default_rng(1).integers(0, 256, (9, 1, SIDE, SIDE, 3), np.uint8))

        def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"pixels": batch}

    onnx.save(tiny_model(batch=batch), folder / "float.onnx")
    quantization.quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        Reader(),
        op_types_to_quantize=["Conv", "Gemm"],
        activation_type=quantization.QuantType.QInt8,
        reduce_range=int8_overflows(),
        extra_options={"ActivationSymmetric": True, "QuantizeBias": False},
    )
    return onnx.load(folder / "int8.onnx")


def failing_model() -> onnx.ModelProto:
    """A model that loads, and fails on every batch: 192 values do not divide by 7."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["cast", "shape"], ["logits"]),
    ]
    constants = {"shape": np.array([7, -1])}
    shape = ["N", SIDE, SIDE, 3]
    return _checked(nodes, TensorProto.UINT8, shape, ["M", "K"], constants)


def truth(
    model: onnx.ModelProto, batch: npt.NDArray[np.uint8 | np.float32]
) -> npt.NDArray[np.float32]:
    """Logits by the reference implementation of the ONNX standard, an image at a time."""
    evaluator = ReferenceEvaluator(model)
    return np.concatenate([evaluator.run(None, {"pixels": image[None]})[0] for image in batch])


def write_bundle(
    path: Path,
    target: str,
    model: onnx.ModelProto,
    labels: list[Label] | None = LABELS,
    *,
    faulty: bool = False,
    **changes: Any,
) -> Path:
    """Write `model` as a bundle at `path`; `changes` are the manifest's.

    A TensorRT bundle gets an engine: the real library's where it can run, else one of the fake,
    where `faulty` makes its runs fail.
    """
    file = MODEL_FILES.get(target, "model.onnx")
    fp16 = changes.get("precision") == "fp16"
    with BundleWriter(path) as writer:
        if target == "openvino":
            _save_openvino(model, writer.staging / file, fp16)
        elif target == "litert":
            (writer.staging / file).write_bytes(litert_file(model, fp16_weights=fp16))
        else:
            onnx.save(model, writer.staging / file)
        described = manifest(target=target, model=file, **(_interface(model) | changes))
        if target == "tensorrt":
            described = _with_fake_engine(described, model, writer.staging, faulty)
        bundle = writer.commit(described, labels)
    if target == "tensorrt" and gpu_or_fake.runs_for_real():
        build_engine(bundle)
    return path


def _with_fake_engine(
    described: Manifest, model: onnx.ModelProto, staging: Path, faulty: bool
) -> Manifest:
    if gpu_or_fake.runs_for_real():
        return described
    plan = fake_tensorrt.FAULTY_PLAN if faulty else fake_tensorrt.PLAN
    (staging / "engine.plan").write_bytes(plan + model.SerializeToString())
    return replace(described, engines=(engine_record(batch=described.batch),))


def engine_record(**changes: Any) -> EngineRecord:
    """An engine for the fake GPU and the fake TensorRT, with `changes`."""
    record = EngineRecord(
        file="engine.plan",
        library="tensorrt",
        library_version=fake_tensorrt.VERSION,
        compute_capability=(fake_tensorrt.GPU.compute_capability,),
        gpu=fake_tensorrt.GPU.name,
        cuda=fake_tensorrt.GPU.cuda,
        jetpack=None,
        batch=BatchRange(1, 1, 1),
        version_compatible=False,
        hardware_compatible=False,
        dla_core=None,
    )
    return replace(record, **changes)


def _save_openvino(model: onnx.ModelProto, path: Path, fp16_weights: bool) -> None:
    graph, weights = _openvino_files(model.SerializeToString(deterministic=True), fp16_weights)
    path.write_bytes(graph)
    path.with_suffix(".bin").write_bytes(weights)


@lru_cache(maxsize=64)
def _openvino_files(model: bytes, fp16_weights: bool) -> tuple[bytes, bytes]:
    """The .xml and the .bin; kept, as its conversion waits for threads for seconds."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        converted = openvino.convert_model(io.BytesIO(model))
        openvino.save_model(converted, path, compress_to_fp16=fp16_weights)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def _interface(model: onnx.ModelProto) -> dict[str, Any]:
    tensor = model.graph.input[0].type.tensor_type
    size = tensor.shape.dim[0].dim_value
    if tensor.elem_type == TensorProto.UINT8:
        spec = InputSpec("pixels", "uint8", "NHWC", SIDE, SIDE, 3)
    else:
        spec = InputSpec("pixels", "float32", "NCHW", SIDE, SIDE, 3)
    return {"input": spec, "batch": BatchRange(size, size, size) if size else BatchRange(1, 4, 8)}


def _checked(
    nodes: list[onnx.NodeProto],
    element: int,
    input_shape: list[int | str],
    output_shape: list[int | str],
    constants: dict[str, Any],
) -> onnx.ModelProto:
    used = sorted(constants.keys() & {name for node in nodes for name in node.input})
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", element, input_shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, output_shape)],
        [
            numpy_helper.from_array(np.asarray(c), name)
            for name, c in constants.items()
            if name in used
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model
