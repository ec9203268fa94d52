"""What is fuzzed: a reader of each format, with its corpus and what a right answer is."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fuzz_corpus as corpus
import numpy as np
from fuzz_reading import Target
from tiny_bundles import CLASSES, manifest

from effnet_calibration.table import CalibrationTable
from effnet_edge.bundle.manifest import BatchRange, Manifest
from effnet_edge.bundle.schema import check_labels, parse_json
from effnet_edge.labels import read_labels
from effnet_edge.model.checkpoints.files import parse_checkpoint, read_checkpoint
from effnet_edge.model.checkpoints.timm_config import read_timm_config
from effnet_edge.model.checkpoints.transformers_config import read_transformers_config
from effnet_edge.parity.measures.gate_file import read_limits
from effnet_edge.pictures.csv_files import csv_rows
from effnet_edge.pictures.decoding import decode
from effnet_edge.pictures.image import Preprocessing
from effnet_edge.pictures.video import frames
from effnet_edge.runtime.backend import EngineSpec, load_backend
from effnet_edge.runtime.interface import interface_of
from effnet_export.logits_file import read_logits

if TYPE_CHECKING:
    from collections.abc import Callable


def _checkpoint(name: str, data: bytes, _: Path) -> Any:
    return parse_checkpoint(name, data).tensors


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _tensorflow(fuzzed: int, data: bytes, folder: Path) -> Any:
    files = list(corpus.tensorflow_files())
    files[fuzzed] = data
    _file(folder, "a.data-00000-of-00001", files[1])
    return read_checkpoint(_file(folder, "a.index", files[0])).tensors


def _infer(target: str, model: str, data: dict[str, bytes], **changes: Any) -> Any:
    """As a bundle's model is loaded once its hashes were compared, and its first answer."""
    told = manifest(target=target, model=model, **changes)
    spec = EngineSpec(
        Path(model),
        told.precision,
        threads=1,
        read=lambda path: data[path.name],
        interface=interface_of(told),
    )
    backend = load_backend(target, spec)
    try:
        size = (told.input.height, told.input.width, told.input.channels)
        return backend.infer(np.zeros((1, *size), np.uint8))
    finally:
        backend.close()


def _onnx(data: bytes, _: Path) -> Any:
    return _infer("onnxruntime", "model.onnx", {"model.onnx": data}, batch=BatchRange(1, 4, 8))


def _ir(data: bytes, _: Path) -> Any:
    files = {"model.xml": data, "model.bin": corpus.ir_files()[1]}
    return _infer("openvino", "model.xml", files)


def _litert(data: bytes, _: Path) -> Any:
    return _infer("litert", "model.tflite", {"model.tflite": data}, batch=BatchRange(1, 4, 8))


def _config(data: bytes, folder: Path) -> Any:
    beside = _file(folder, "config.json", data).with_name("model.pth")
    return [read(beside) for read in (read_timm_config, read_transformers_config)]


def _labels(data: bytes, folder: Path) -> Any:
    return read_labels(_file(folder, "labels.txt", data), CLASSES)


def _bundle_labels(data: bytes, _: Path) -> Any:
    document = parse_json(data, "labels.json")
    check_labels(document, "labels.json")
    return document


def _gates(data: bytes, folder: Path) -> Any:
    return read_limits(_file(folder, "gate.toml", data))


def _csv(data: bytes, folder: Path) -> Any:
    return list(csv_rows(_file(folder, "a.csv", data)))


def _array(data: bytes, folder: Path) -> Any:
    return decode(_file(folder, "a.npz", data))


def _logits(data: bytes, folder: Path) -> Any:
    normal = Preprocessing(8, 1.0, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return read_logits(_file(folder, "a.npz", data), normal)


def _video(data: bytes, folder: Path) -> Any:
    return [frame.pixels for frame in frames(_file(folder, "a.mp4", data))]


def _picture(data: bytes, _: Path) -> Any:
    return decode(data)


_PICTURES: dict[str, Callable[[], list[bytes]]] = {
    "png": partial(corpus.pictures, "PNG", "RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "jpeg": partial(corpus.pictures, "JPEG", "RGB", "L", "CMYK"),
    "jpeg-progressive": partial(corpus.pictures, "JPEG", "RGB", progressive=True),
    "jpeg-exif": partial(corpus.with_exif, "JPEG"),
    "gif": partial(corpus.animation, "GIF"),
    "webp": partial(corpus.pictures, "WEBP", "RGB", "RGBA"),
    "webp-animation": partial(corpus.animation, "WEBP"),
    "bmp": partial(corpus.pictures, "BMP", "RGB", "L", "P", "1"),
    "tiff": partial(corpus.pictures, "TIFF", "RGB", "L", "I;16", "CMYK"),
    "tiff-deflate": partial(corpus.pictures, "TIFF", "RGB", compression="tiff_deflate"),
    "tiff-lzw": partial(corpus.pictures, "TIFF", "RGB", compression="tiff_lzw"),
    "ppm": partial(corpus.pictures, "PPM", "RGB", "L", "1"),
    "jpeg2000": partial(corpus.pictures, "JPEG2000", "RGB", "L"),
}

TARGETS: dict[str, Target] = {
    "safetensors": Target(corpus.safetensors_files, partial(_checkpoint, "x.safetensors")),
    "pth": Target(partial(corpus.pytorch, True), partial(_checkpoint, "x.pth"), True),
    "pth-stream": Target(partial(corpus.pytorch, False), partial(_checkpoint, "x.pth")),
    "h5": Target(corpus.hdf5_files, partial(_checkpoint, "x.h5"), every=40),
    "keras": Target(corpus.keras_files, partial(_checkpoint, "x.keras"), every=40),
    "tensorflow-index": Target(
        lambda: [corpus.tensorflow_files()[0]], partial(_tensorflow, 0), True
    ),
    "tensorflow-data": Target(
        lambda: [corpus.tensorflow_files()[1]], partial(_tensorflow, 1), True
    ),
    "onnx": Target(corpus.onnx_files, _onnx),
    "litert": Target(corpus.litert_files, _litert),
    "openvino-ir": Target(lambda: [corpus.ir_files()[0]], _ir, every=4),
    "manifest": Target(corpus.manifests, lambda data, _: Manifest.from_json(data, "manifest.json")),
    "labels": Target(corpus.label_files, _labels),
    "bundle-labels": Target(corpus.bundle_labels, _bundle_labels),
    "calibration": Target(
        corpus.calibration_tables, lambda data, _: CalibrationTable.from_json(data)
    ),
    "gates": Target(corpus.gate_files, _gates),
    "configs": Target(corpus.configs, _config),
    "csv": Target(corpus.csv_files, _csv),
    "arrays": Target(corpus.array_files, _array),
    "logits": Target(corpus.logits_files, _logits),
    "video": Target(corpus.videos, _video, every=40),
    **{name: Target(make, _picture) for name, make in _PICTURES.items()},
}
