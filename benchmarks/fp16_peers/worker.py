"""Run by the interpreter that has the peers: PEER MODEL.onnx PIXELS.npz TYPED.onnx OPTIONS.

OPTIONS are the peer's own, in JSON. The last line printed says what it took, in JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Callable


def autocast(file: str, pixels: str, options: dict[str, object]) -> onnx.ModelProto:
    """ModelOpt, with the ranges that it measures."""
    from modelopt.onnx.autocast import convert_to_mixed_precision

    return convert_to_mixed_precision(file, keep_io_types=True, calibration_data=pixels, **options)


def autocast_unmeasured(file: str, _pixels: str, options: dict[str, object]) -> onnx.ModelProto:
    """ModelOpt by operations alone."""
    from modelopt.onnx.autocast import convert_to_f16

    return convert_to_f16(onnx.load(file), keep_io_types=True, **options)


def converter_common(file: str, _pixels: str, options: dict[str, object]) -> onnx.ModelProto:
    """onnxconverter-common by its list of operations."""
    from onnxconverter_common import float16

    return float16.convert_float_to_float16(onnx.load(file), keep_io_types=True, **options)


def converter_common_auto(file: str, pixels: str, options: dict[str, object]) -> onnx.ModelProto:
    """onnxconverter-common by trial; it takes one input only."""
    from onnxconverter_common import auto_mixed_precision

    with np.load(pixels) as loaded:
        feed = {name: values[:1] for name, values in loaded.items()}
    return auto_mixed_precision.auto_convert_mixed_precision(
        onnx.load(file), feed, keep_io_types=True, **options
    )


def onnxruntime_transformers(
    file: str, _pixels: str, options: dict[str, object]
) -> onnx.ModelProto:
    """A copy of onnxconverter-common's that onnxruntime has developed on."""
    from onnxruntime.transformers import float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    typed = float16.convert_float_to_float16(onnx.load(file), keep_io_types=True, **options)
    OnnxModel(typed).topological_sort()  # it leaves this to its caller
    return typed


PEERS: dict[str, Callable[[str, str, dict[str, object]], onnx.ModelProto]] = {
    each.__name__: each
    for each in (
        autocast,
        autocast_unmeasured,
        converter_common,
        converter_common_auto,
        onnxruntime_transformers,
    )
}

if __name__ == "__main__":
    peer, model, pictures, typed, settings = sys.argv[1:]
    start = time.process_time()
    result = PEERS[peer](model, pictures, json.loads(settings))
    seconds = time.process_time() - start
    onnx.save(result, typed)
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"cpu_seconds": seconds, "peak_bytes": 1024 * kibibytes}))  # noqa: T201
