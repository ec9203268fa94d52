"""Our typing and the peers', each from one float32 graph to a typed one."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from effnet_edge.pictures.image import normalize
from effnet_export.fp16 import LARGEST, type_fp16

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from int8_peers.subject import Pictures
    from numpy.typing import NDArray

    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.sets import Batch

# auto_mixed_precision tries on, and on.
PATIENCE = 300

_WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Task:
    """A graph to type.

    Attributes:
        file: the float32 graph.
        folder: for what the peers write.
        pictures: to measure on.
        peer_pictures: how many of them a peer gets that holds all activations in memory.
        interpreter: that has the peers.
    """

    file: Path
    folder: Path
    pictures: Pictures
    preprocessing: Preprocessing
    peer_pictures: int
    interpreter: Path


@dataclass(frozen=True)
class Typed:
    """What came of it; `peak_bytes` only where the method ran in a process of its own."""

    model: onnx.ModelProto
    cpu_seconds: float
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    name: str
    type: Callable[[Task], Typed]


class _Decoded:
    """Pictures in memory, so that no method's time has the decoding in it."""

    def __init__(self, pixels: NDArray[np.uint8], source: str) -> None:
        self._pixels = pixels
        self.source = source

    def __len__(self) -> int:
        return len(self._pixels)

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, skipped: list[str] | None = None
    ) -> Iterator[Batch]:
        """As `ImageSet` gives them."""
        del preprocessing, skipped
        for start in range(0, len(self), batch_size):
            yield self._pixels[start : start + batch_size], None


def _untyped(task: Task) -> Typed:
    return Typed(onnx.load(task.file), 0.0)


def _ours(task: Task) -> Typed:
    model, pictures = onnx.load(task.file), task.pictures
    start = time.process_time()
    typed = type_fp16(model, _Decoded(pictures.pixels, str(pictures.path)), task.preprocessing)
    return Typed(typed.model, time.process_time() - start)


def _peer(name: str, **options: object) -> Callable[[Task], Typed]:
    def run(task: Task) -> Typed:
        pixels, typed = task.folder / "pixels.npz", task.folder / "typed.onnx"
        image = onnx.load(task.file).graph.input[0]
        inputs: NDArray[np.generic] = task.pictures.pixels[: task.peer_pictures]
        if image.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            inputs = normalize(inputs, task.preprocessing)
        np.savez(pixels, **{image.name: inputs})
        files = [str(each) for each in (task.file, pixels, typed)]
        command = [str(task.interpreter), str(_WORKER), name, *files, json.dumps(options)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"no graph after {PATIENCE} s") from error
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return Typed(onnx.load(typed), **json.loads(done.stdout.splitlines()[-1]))

    return run


METHODS = (
    Method("float32, untyped", _untyped),
    Method("`type_fp16`", _ours),
    Method("ModelOpt AutoCast", _peer("autocast")),
    Method(f"ModelOpt AutoCast, data_max={LARGEST:.0f}", _peer("autocast", data_max=LARGEST)),
    Method("ModelOpt convert_to_f16", _peer("autocast_unmeasured")),
    Method("onnxconverter-common float16", _peer("converter_common")),
    Method(
        "onnxconverter-common auto_mixed_precision",
        # The tolerances that its own example gives.
        _peer("converter_common_auto", rtol=0.01, atol=0.001),
    ),
    Method("onnxruntime.transformers float16", _peer("onnxruntime_transformers")),
)
