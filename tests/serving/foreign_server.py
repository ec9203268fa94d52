"""MLServer on 127.0.0.1 for tests: another implementation of the protocol than Triton's.

It is installed once, beside the tests' environment, in the versions that `requirements/` names.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from triton_server import PYTHON, REQUIREMENTS, installed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_SECONDS, _END_SECONDS = 120, 60
_RUNTIME = """
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class OnnxRuntime(MLModel):
    async def load(self):
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri)
        return True

    async def predict(self, payload):
        pixels = NumpyCodec.decode_input(payload.inputs[0])
        (rows,) = self.session.run(None, {"pixels": pixels})
        output = NumpyCodec.encode_output("logits", rows)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


@contextmanager
def mlserver(room: Path, model: Path, shape: list[int], classes: int) -> Iterator[tuple[str, str]]:
    """Serve an ONNX file as "tiny"; its addresses by HTTP and by gRPC."""
    packages = _installed()
    http, grpc, metrics = _free_ports(3)
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,
    }
    served = {
        "name": "tiny",
        "implementation": "onnx_runtime.OnnxRuntime",
        "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": shape}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, classes]}],
        "parameters": {"uri": str(model)},
    }
    (room / "tiny").mkdir(parents=True)
    (room / "onnx_runtime.py").write_text(_RUNTIME)
    (room / "settings.json").write_text(json.dumps(settings))
    (room / "tiny" / "model-settings.json").write_text(json.dumps(served))
    start = [sys.executable, "-c", "from mlserver.cli import main; main()", "start", str(room)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), str(room)])}
    with (room / "log").open("wb") as log:
        process = subprocess.Popen(start, env=environment, stdout=log, stderr=log)
    try:
        if not _is_ready(process, f"http://127.0.0.1:{http}/v2/models/tiny/ready"):
            raise AssertionError((room / "log").read_text(errors="replace")[-4000:])
        yield f"http://127.0.0.1:{http}/tiny", f"grpc://127.0.0.1:{grpc}/tiny"
    finally:
        process.terminate()
        process.wait(_END_SECONDS)


def _installed() -> Path:
    """The folder of MLServer and what it needs, beside what the tests of Triton install."""
    cache = installed("client").parent
    folder, partial = cache / f"mlserver-{PYTHON}", cache / "mlserver.partial"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(partial, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            where = ["--target", str(partial), "-r", str(REQUIREMENTS / "mlserver.txt")]
            subprocess.run([*pip, *where], check=True)
            partial.rename(folder)
    return folder


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _is_ready(process: subprocess.Popen[bytes], page: str) -> bool:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(page, timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False
