"""One model in a process of its own: answers and times as it is asked, a JSON line each way.

    python worker.py ENGINE MODEL THREADS PIXELS.npy VALUES.npy

PIXELS are uint8 (N, R, R, 3), VALUES the same pictures normalized, float32 (N, 3, R, R). Of this
project it needs nothing but for its own bundles, so that it runs in any peer's environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[], Any]


class Model:
    """What every engine below gives.

    `open(file, threads)` loads a model; `call(index)` makes the picture of that index ready, and
    what it returns is timed: it gives the logits.
    """

    def __init__(self, pixels: np.ndarray, values: np.ndarray) -> None:
        self.pixels, self.values = pixels, values


class OfBundle(Model):
    """A bundle of effnet-edge, through its runner."""

    def open(self, file: str, threads: int) -> None:
        from effnet_edge import EngineRunner

        self.run = EngineRunner.load(file, threads=threads)
        self.run.warmup()

    def call(self, index: int) -> Call:
        picture = self.pixels[index][None]
        return lambda: self.run.infer(picture)


class OfOpenVino(Model):
    """An IR that takes normalized floats, or pixels."""

    def open(self, file: str, threads: int) -> None:
        import openvino

        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        compiled = openvino.Core().compile_model(file, "CPU", config)
        self.takes_pixels = compiled.input(0).element_type == openvino.Type.u8
        self.request = compiled.create_infer_request()

    def call(self, index: int) -> Call:
        values = (self.pixels if self.takes_pixels else self.values)[index][None]
        return lambda: self.request.infer({0: values}, share_inputs=True)[0]


class OfOnnxruntime(Model):
    """An ONNX model that takes normalized floats."""

    def open(self, file: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def call(self, index: int) -> Call:
        feed = {self.input: self.values[index][None]}
        return lambda: self.session.run(None, feed)[0]


class OfLiteRt(Model):
    """A .tflite file that takes normalized floats, (1, R, R, 3)."""

    def open(self, file: str, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(model_path=file, num_threads=threads)
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]

    def call(self, index: int) -> Call:
        values = np.ascontiguousarray(self.values[index][None].transpose(0, 2, 3, 1))
        scale, zero_point = self.input["quantization"]
        if scale:
            limits = np.iinfo(self.input["dtype"])
            values = np.rint(values / scale + zero_point).clip(limits.min, limits.max)
        values = values.astype(self.input["dtype"])
        return lambda: self._run(values)

    def _run(self, values: np.ndarray) -> np.ndarray:
        self.interpreter.set_tensor(self.input["index"], values)
        self.interpreter.invoke()
        found = self.interpreter.get_tensor(self.output["index"])
        scale, zero_point = self.output["quantization"]
        return (found.astype(np.float32) - zero_point) * scale if scale else found


class OfExecuTorch(Model):
    """A .pte file. Its threads are as many as the processors that this process may use."""

    def open(self, file: str, _threads: int) -> None:
        import torch
        from executorch.runtime import Runtime

        self.torch = torch
        self.program = Runtime.get().load_program(file)
        self.method = self.program.load_method("forward")

    def call(self, index: int) -> Call:
        values = self.torch.from_numpy(self.values[index][None])
        return lambda: self.method.execute([values])[0].numpy()


class OfMnn(Model):
    """A .mnn file of one input `image` and one output `logits`."""

    def open(self, file: str, threads: int) -> None:
        from MNN import expr, nn

        self.expr = expr
        config = {"backend": "CPU", "numThread": threads, "precision": "normal"}
        manager = nn.create_runtime_manager((config,))
        self.network = nn.load_module_from_file(
            file, ["image"], ["logits"], runtime_manager=manager
        )

    def call(self, index: int) -> Call:
        values = self.values[index][None]
        return lambda: self._run(values)

    def _run(self, values: np.ndarray) -> np.ndarray:
        image = self.expr.const(values, values.shape, self.expr.NCHW)
        return np.array(self.network.forward([image])[0].read())


class OfNcnn(Model):
    """A .param file beside its .bin, as pnnx writes them."""

    def open(self, file: str, threads: int) -> None:
        import ncnn

        self.ncnn, self.network = ncnn, ncnn.Net()
        self.network.opt.num_threads = threads
        self.network.load_param(file)
        self.network.load_model(str(Path(file).with_suffix(".bin")))

    def call(self, index: int) -> Call:
        values = self.ncnn.Mat(self.values[index])
        return lambda: self._run(values)

    def _run(self, values: Any) -> np.ndarray:
        with self.network.create_extractor() as extractor:
            extractor.input("in0", values)
            return np.array(extractor.extract("out0")[1])[None]


class OfTorch(Model):
    """An exported program, run eagerly."""

    def open(self, file: str, threads: int) -> None:
        import torch

        self.torch = torch
        torch.set_num_threads(threads)
        self.network = torch.export.load(file).module()

    def call(self, index: int) -> Call:
        values = self.torch.from_numpy(self.values[index][None])
        return lambda: self._run(values)

    def _run(self, values: Any) -> np.ndarray:
        with self.torch.inference_mode():
            return self.network(values).numpy()


class OfCompiledTorch(OfTorch):
    """The same through torch.compile, whose backend needs a C++ compiler."""

    def open(self, file: str, threads: int) -> None:
        super().open(file, threads)
        self.network = self.torch.compile(self.network)


ENGINES: dict[str, Any] = {
    "bundle": OfBundle,
    "openvino": OfOpenVino,
    "onnxruntime": OfOnnxruntime,
    "litert": OfLiteRt,
    "executorch": OfExecuTorch,
    "mnn": OfMnn,
    "ncnn": OfNcnn,
    "torch": OfTorch,
    "torch-compiled": OfCompiledTorch,
}


def answers(model: Any, out: str) -> int:
    """Write the logits of every picture to `out`, float32 (N, classes)."""
    rows = [np.asarray(model.call(index)()).reshape(1, -1) for index in range(len(model.pixels))]
    np.save(out, np.concatenate(rows).astype(np.float32))
    return len(rows)


def times(model: Any, calls: int) -> list[float]:
    """Seconds of each of `calls` calls with one picture, after two that are not counted."""
    call = model.call(0)
    call(), call()
    found = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


def main() -> None:
    """Open the model, say so, and do what each line of standard input asks for."""
    engine, file, threads, pixels, values = sys.argv[1:]
    # What a library prints goes elsewhere than the answers.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    model = ENGINES[engine](np.load(pixels), np.load(values))
    model.open(file, int(threads))
    told: object = "open"
    while True:
        print(json.dumps(told), file=channel, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        what, argument = json.loads(line)
        told = answers(model, argument) if what == "answers" else times(model, argument)


if __name__ == "__main__":
    main()
