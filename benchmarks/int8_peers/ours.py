"""effnet-edge: the FP32 and BF16 references, and its INT8."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import effnet_calibration
import effnet_edge
import effnet_export
from effnet_calibration.calibrate import calibrate
from effnet_calibration.quantized import apply
from effnet_calibration.schemes import SYMMETRIC_INT8
from effnet_edge.bundle import BatchRange, Bundle
from effnet_edge.pictures.sets import ImageSet
from effnet_export.onnx_graph import export_onnx
from effnet_export.qdq import quantize_graph
from effnet_export.simplify import simplify
from int8_peers.engines import computes_in_bf16
from int8_peers.method import Method, Product
from int8_peers.subject import VARIANT

if TYPE_CHECKING:
    from int8_peers.method import Engine, Make
    from int8_peers.subject import Subject

FP32 = "OpenVINO FP32"
BF16 = "OpenVINO BF16"
OPENVINO = "effnet-edge INT8, OpenVINO"
_COMMAND = "from effnet_edge.cli.main import main; main()"
_TOOLS = ("torch", "onnx", "onnxsim", "onnxruntime", "openvino")


def methods(openvino_hints: tuple[str, ...]) -> list[Method]:
    """The references first."""
    code = {"code": _code_digest()}

    def exported(
        group: str, engine: Engine, options: tuple[str, ...], hints: tuple[str, ...]
    ) -> Method:
        target = ("--target", engine, *options)
        make = _exporter(target, calibrated="--int8" in options)
        settings = {"options": " ".join(target)}
        # In onnxruntime the runner's threads would spin into the next one's turn.
        in_runner = engine == "openvino"
        return Method(group, settings, make, engine, _TOOLS, hints, code, in_runner)

    references = [exported(FP32, "openvino", ("--fp32",), ("f32",))]
    if computes_in_bf16():
        references.append(exported(BF16, "openvino", ("--fp16",), ("bf16",)))
    return [
        *references,
        exported("onnxruntime FP32", "onnxruntime", ("--fp32",), ("",)),
        exported(OPENVINO, "openvino", ("--int8",), openvino_hints),
        *(
            exported(f"{OPENVINO}, {option}", "openvino", ("--int8", option), openvino_hints)
            for option in ("--exact-activations", "--fast-activations")
        ),
        exported("effnet-edge INT8, onnxruntime", "onnxruntime", ("--int8",), ("",)),
        Method(
            "effnet-edge symmetric int8, simulated in onnxruntime",
            {"scheme": SYMMETRIC_INT8.name},
            _symmetric,
            "onnxruntime",
            _TOOLS,
            inputs=code,
        ),
    ]


def export_command(options: tuple[str, ...], output: Path) -> Path:
    """Run `effnet-edge export` as a user would, in its own process; gives the model file.

    Raises:
        RuntimeError: the command failed; the text is its own.
    """
    arguments = ["export", VARIANT, "--quiet", *options, "-o", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return Bundle.load(output).model_path


def _exporter(options: tuple[str, ...], *, calibrated: bool) -> Make:
    def make(subject: Subject, folder: Path) -> Product:
        extra: tuple[str, ...] = ()
        if calibrated:
            pictures = subject.calibration
            size = str(len(pictures.pixels))
            extra = ("--calibration", str(pictures.path), "--calibration-size", size)
        model = export_command((*options, *extra), folder / "bundle")
        return Product(str(model.relative_to(folder)))

    return make


def _symmetric(subject: Subject, folder: Path) -> Product:
    path, preprocessing = subject.calibration.path, subject.preprocessing
    pictures = ImageSet.from_folder(path) if path.is_dir() else ImageSet.from_csv(path)
    table = calibrate(subject.folded, pictures, preprocessing, (SYMMETRIC_INT8,))
    quantized = apply(subject.folded, table, SYMMETRIC_INT8)
    exported = export_onnx(
        quantized.network, preprocessing, input_kind="uint8-nhwc", batch=BatchRange(1, 1, 1)
    )
    graph = quantize_graph(simplify(exported), quantized)
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    return Product("model.onnx")


def _code_digest() -> str:
    """Of the sources that make our models: a changed line makes a new model."""
    digest = hashlib.sha256()
    for package in (effnet_edge, effnet_calibration, effnet_export):
        root = Path(package.__path__[0])
        for source in sorted(root.rglob("*.py")):
            digest.update(source.relative_to(root).as_posix().encode() + source.read_bytes())
    return digest.hexdigest()
