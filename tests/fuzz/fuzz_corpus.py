"""Small sound files of every format that is read, made here; no file is anybody else's."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import openvino
import safetensors.torch
import torch
from bundle_writer import write_bundle as write_tf_bundle
from integer_models import model_of_integers
from PIL import Image
from tiny_bundles import LABELS, engine_record, manifest, quantized_model, tiny_model
from video_makers import write_video

from effnet_calibration.quantization import (
    BIASES,
    DEPTHWISE,
    LayerQuantization,
    PixelNormalization,
    Quantization,
    TensorEntry,
)
from effnet_calibration.table import CalibrationSet, CalibrationTable, ModelIdentity, TensorRange
from effnet_edge.bundle import (
    Calibration,
    Choice,
    Contender,
    EngineCheck,
    FileRecord,
    Graph,
    Latency,
    Measured,
    StageParity,
)
from effnet_edge.runtime.openvino_core import openvino_core
from effnet_edge.size import Size
from effnet_export.litert.writing import litert_file

TENSORS = {
    "a.weight": torch.arange(300.0).reshape(3, 100),
    "a.bias": torch.ones(3),
    "half": torch.ones(8, dtype=torch.float16),
    "count": torch.tensor(7),
}
VARIABLES = {
    "stem_conv": {"kernel": np.ones((3, 3, 3, 4), "f4")},
    "stem_bn": dict.fromkeys(
        ("gamma", "beta", "moving_mean", "moving_variance"), np.full(4, 0.5, "f4")
    ),
    "predictions": {"kernel": np.ones((4, 3), "f4"), "bias": np.zeros(3, "f4")},
}
KERAS_CONFIG = {
    "class_name": "Functional",
    "config": {
        "layers": [
            {"class_name": "Conv2D", "config": {"name": "stem_conv", "activation": "linear"}},
            {"class_name": "BatchNormalization", "config": {"name": "stem_bn", "epsilon": 1e-3}},
        ]
    },
}
TIMM = {
    "architecture": "tf_efficientnet_b0",
    "num_classes": 5,
    "num_features": 1280,
    "pretrained_cfg": {
        "tag": "ns_jft_in1k",
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "pool_size": [7, 7],
    },
    "model_args": {"drop_rate": 0.1},
}
TRANSFORMERS = {
    "architectures": ["EfficientNetForImageClassification"],
    "model_type": "efficientnet",
    "image_size": 224,
    "num_channels": 3,
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "batch_norm_eps": 0.001,
    "hidden_act": "swish",
    "pooling_type": "mean",
    "id2label": {"0": "cat", "1": "dog"},
}


def _saved(content: Any, *, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def pytorch(zipped: bool) -> list[bytes]:
    training = {"epoch": 3, "state_dict": TENSORS, "optimizer": {"lr": 0.1, "steps": [1, 2]}}
    return [_saved(TENSORS, zipped=zipped), _saved(training, zipped=zipped)]


def safetensors_files() -> list[bytes]:
    return [safetensors.torch.save(TENSORS), safetensors.torch.save(TENSORS, {"format": "pt"})]


def hdf5_files() -> list[bytes]:
    old, new, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with h5py.File(old, "w") as file:
        file.attrs["model_config"] = json.dumps(KERAS_CONFIG)
        for layer, variables in VARIABLES.items():
            for leaf, values in variables.items():
                file[f"model_weights/{layer}/{layer}/{leaf}:0"] = values
    _write_numbered(new)
    with h5py.File(packed, "w") as file:
        file.create_dataset("a/kernel:0", data=np.ones((8, 8), "f4"), chunks=(4, 4), compression=9)
    return [old.getvalue(), new.getvalue(), packed.getvalue()]


def _write_numbered(buffer: io.BytesIO) -> None:
    with h5py.File(buffer, "w") as file:
        for number, (layer, variables) in enumerate(VARIABLES.items()):
            group = file.create_group(f"layers/layer_{number}/vars")
            group.attrs["name"] = layer
            for place, values in enumerate(variables.values()):
                group[str(place)] = values


def keras_files() -> list[bytes]:
    weights, buffer = io.BytesIO(), io.BytesIO()
    _write_numbered(weights)
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(KERAS_CONFIG))
        archive.writestr("model.weights.h5", weights.getvalue())
    return [buffer.getvalue()]


@cache
def tensorflow_files() -> tuple[bytes, bytes]:
    """The index and the data of one checkpoint."""
    values = {
        f"{layer}/{leaf}": each
        for layer, variables in VARIABLES.items()
        for leaf, each in variables.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        index = write_tf_bundle(Path(folder) / "a", values)
        return index.read_bytes(), index.with_name("a.data-00000-of-00001").read_bytes()


def onnx_files() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        quantized = quantized_model(Path(folder), "N")
    models = [tiny_model(batch="N"), quantized]
    return [model.SerializeToString() for model in models]


def litert_files() -> list[bytes]:
    model = tiny_model(batch="N")
    integers = [model_of_integers("N"), model_of_integers("N", hard=True)]
    files = [litert_file(each) for each in (model, *integers)]
    return [*files, litert_file(model, fp16_weights=True)]


@cache
def ir_files() -> tuple[bytes, bytes]:
    """The XML and the weights of one model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        onnx.save(tiny_model(), Path(folder) / "model.onnx")
        converted = openvino_core().read_model(Path(folder) / "model.onnx")
        openvino.save_model(converted, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def manifests() -> list[bytes]:
    stage = StageParity(
        *("onnx", "pytorch", "onnx", "FP32", 16), {"kl": Measured(0.001, at_most=0.2)}, (1, 2)
    )
    whole = manifest(
        precision="int8",
        parity=(stage,),
        labels="labels.json",
        calibration=Calibration("table.json", "symmetric-int8", "pictures", 100, "0" * 64, ("a",)),
        files={
            name: FileRecord("0" * 64, 10)
            for name in ("model.xml", "model.bin", "labels.json", "table.json")
        },
    )
    graphs = [Graph(name, None, (stage,)) for name in ("model.xml", "model.bin")]
    opened = replace(
        whole,
        target="tensorrt",
        calibration=None,
        answers="table.json",
        choice=Choice(tuple(Contender(each.model, "INT8", "int8", stage, each) for each in graphs)),
    )
    latency = Latency(100, 0.001, 0.002, (0.0015, 0.003))
    built = tuple(
        Contender(each.model, "INT8", "int8", stage, None, latency, None) for each in graphs
    )
    engine = engine_record(file="model.bin", check=EngineCheck(0.1, 0.2, (1, 2), 1))
    closed = replace(opened, choice=Choice(built, "model.xml"), engines=(engine,))
    return [each.to_json().encode() for each in (whole, opened, closed)]


def calibration_tables() -> list[bytes]:
    grid = TensorEntry(0.1, 0, "mse", 30.0)
    layers = {
        "stem.conv": LayerQuantization(grid, kept=True),
        "stages.0.0.depthwise.conv": LayerQuantization(grid, changes={DEPTHWISE: (0.5, 2.0)}),
        "classifier": LayerQuantization(grid, changes={BIASES: (0.5, 1.0)}),
    }
    pixels = PixelNormalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    quantizations = [
        Quantization("symmetric-int8", layers, 0.9, pixels),
        Quantization("asymmetric-int8-outputs", layers, outputs={"stem.conv": grid}),
    ]
    table = CalibrationTable(
        ModelIdentity("b0", Size(64, 64), "same", 3, "0" * 64),
        CalibrationSet("pictures", 8, "1" * 64, ("cat.jpg is damaged",)),
        {"torch": "2.9"},
        {"stem": TensorRange((0.0, -1.5), (2.0, 3.0))},
        {each.scheme: each for each in quantizations},
    )
    return [table.to_json().encode()]


def label_files() -> list[bytes]:
    names = [label.name for label in LABELS]
    objects = [asdict(label) for label in LABELS]
    return [
        "\n".join(names).encode(),
        json.dumps(names).encode(),
        json.dumps(objects).encode(),
        repr(dict(enumerate(names))).encode(),
        "\ufeff".encode() + "\n".join(names).encode(),
        "\n".join(names).encode("utf-16"),
    ]


def bundle_labels() -> list[bytes]:
    return [json.dumps([asdict(label) for label in LABELS]).encode()]


def gate_files() -> list[bytes]:
    return [b"# ours\n[gate]\nmax-kl = 0.02\nmin-agreement = 98.5\nmax-drop = 2\n"]


def configs() -> list[bytes]:
    return [json.dumps(TIMM).encode(), json.dumps(TRANSFORMERS).encode()]


def array_files() -> list[bytes]:
    pixels = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)
    files = []
    for save in (np.save, np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, pixels)
        files.append(buffer.getvalue())
    return files


def logits_files() -> list[bytes]:
    files = []
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, logits=np.ones((2, 3), "f4"), pixels=np.ones((2, 8, 8, 3), np.uint8))
        files.append(buffer.getvalue())
    return files


def csv_files() -> list[bytes]:
    return [b'file,label\na.png,cat\n"b, c.png",dog\n', "path;wert\nä.png;1,5\n".encode()]


def _picture(mode: str) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (11, 13, 4), np.uint8)
    return Image.fromarray(values, "RGBA").convert(mode)


def pictures(image_format: str, *modes: str, **options: Any) -> list[bytes]:
    files = []
    for mode in modes:
        buffer = io.BytesIO()
        _picture(mode).save(buffer, image_format, **options)
        files.append(buffer.getvalue())
    return files


def animation(image_format: str) -> list[bytes]:
    buffer = io.BytesIO()
    frames = [_picture("RGB"), _picture("L").convert("RGB")]
    frames[0].save(buffer, image_format, save_all=True, append_images=frames[1:])
    return [buffer.getvalue()]


def with_exif(image_format: str) -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return pictures(image_format, "RGB", exif=exif.tobytes())


def videos() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"a.mp4": "libx264", "a.mkv": "libvpx", "a.avi": "mpeg4", "a.ts": "mpeg4"}
        paths = [
            write_video(Path(folder) / name, frames=4, codec=codec) for name, codec in kinds.items()
        ]
        return [path.read_bytes() for path in paths]
