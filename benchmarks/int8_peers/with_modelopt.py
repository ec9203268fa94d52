"""NVIDIA ModelOpt's ONNX post-training quantization, in an environment of its own.

It pins versions of onnx and onnxruntime that this project does not use, so it runs under another
interpreter; see `modelopt-requirements.txt`.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from int8_peers.method import Method, Product
from int8_peers.onnx_export import exported_onnx

if TYPE_CHECKING:
    from int8_peers.subject import Subject

_WORKER = Path(__file__).with_name("modelopt_worker.py")
_VARIANTS: tuple[dict[str, list[str]], ...] = ({}, {"op_types_to_quantize": ["Conv", "Gemm"]})


def methods(interpreter: Path) -> list[Method]:
    """Both of its INT8 calibrations; its AWQ is for INT4 weights."""
    installed = version(interpreter)
    return [
        _method(interpreter, installed, calibration, variant)
        for calibration in ("max", "entropy")
        for variant in _VARIANTS
    ]


def _method(
    interpreter: Path, installed: str, calibration: str, variant: dict[str, list[str]]
) -> Method:
    def make(subject: Subject, folder: Path) -> Product:
        onnx.save(exported_onnx(subject), folder / "fp32.onnx")
        np.save(folder / "inputs.npy", np.concatenate(subject.calibration_inputs))
        options = {
            "onnx_path": str(folder / "fp32.onnx"),
            "output_path": str(folder / "model.onnx"),
            "quantize_mode": "int8",
            "calibration_method": calibration,
            "calibration_eps": ["cpu"],
            "high_precision_dtype": "fp32",
            "dq_only": True,
            **variant,
        }
        _run(interpreter, folder, options)
        (folder / "inputs.npy").unlink()
        return Product("model.onnx")

    settings = {name: "+".join(values) for name, values in variant.items()}
    return Method(
        f"ModelOpt ONNX PTQ, {calibration}",
        settings,
        make,
        "onnxruntime",
        ("onnx", "onnxsim", "torch"),
        inputs={"nvidia-modelopt": installed},
    )


def _run(interpreter: Path, folder: Path, options: dict[str, object]) -> None:
    command = [str(interpreter), str(_WORKER), str(folder / "inputs.npy"), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])


def version(interpreter: Path) -> str:
    """ModelOpt's, or why there is none."""
    code = "from importlib.metadata import version; print(version('nvidia-modelopt'))"
    try:
        done = subprocess.run(
            [str(interpreter), "-c", code], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return f"not run: {error}"
    return (done.stdout or done.stderr).strip().splitlines()[-1]
