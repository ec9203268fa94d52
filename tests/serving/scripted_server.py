"""A server of KServe v2 on 127.0.0.1 for tests, which answers right, or as it is told to.

Written after the protocol's text, with none of the project's code:
https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import json
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


DTYPES = {"UINT8": np.uint8, "FP32": np.float32, "FP16": np.float16, "FP64": np.float64}

Answers = "Callable[[npt.NDArray[Any]], npt.NDArray[Any]]"


@dataclass
class Script:
    """What the server says and does.

    Attributes:
        answers: rows for a batch of the input.
        infer: replaces the reply to an inference, from the first one on that `sound` leaves.
        sound: how many inferences are answered right before.
        pages: other replies to GET, by path.
    """

    answers: Answers
    shape: list[int]
    datatype: str = "UINT8"
    output: dict[str, Any] = field(
        default_factory=lambda: {"name": "logits", "datatype": "FP32", "shape": [-1, 5]}
    )
    extensions: tuple[str, ...] = ("binary_tensor_data", "model_configuration")
    config: dict[str, Any] = field(default_factory=dict)
    infer: Callable[[Handler], None] | None = None
    sound: int = 0
    pages: dict[str, Callable[[Handler], None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    script: Script

    def do_GET(self) -> None:
        script = self.script
        script.asked.append(self.path)
        if self.path in script.pages:
            script.pages[self.path](self)
            return
        tensor = {"name": "pixels", "datatype": script.datatype, "shape": script.shape}
        pages = {
            "/v2": {"name": "scripted", "version": "1", "extensions": list(script.extensions)},
            "/v2/models/tiny/ready": {},
            "/v2/models/tiny": {
                "name": "tiny",
                "platform": "python",
                "inputs": [tensor],
                "outputs": [script.output],
            },
            "/v2/models/tiny/config": script.config,
        }
        if self.path in pages:
            self.reply(pages[self.path])
        else:
            self.reply({"error": f"no such page: {self.path}"}, 404)

    def do_POST(self) -> None:
        script = self.script
        script.asked.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if script.infer is not None and len(script.batches) >= script.sound:
            script.batches.append(0)
            script.infer(self)
            return
        head = self.headers.get("Inference-Header-Content-Length")
        request = json.loads(body[: int(head)] if head else body)
        (given,) = request["inputs"]
        if head:
            assert given["parameters"]["binary_data_size"] == len(body) - int(head)
            flat = np.frombuffer(body[int(head) :], DTYPES[given["datatype"]])
        else:
            flat = np.array(given["data"], DTYPES[given["datatype"]])
        batch = flat.reshape(given["shape"])
        script.batches.append(len(batch))
        rows = script.answers(batch)
        output = {**script.output, "shape": list(rows.shape)}
        if not head:
            self.reply({"model_name": "tiny", "outputs": [{**output, "data": rows.tolist()}]})
            return
        raw = rows.astype(DTYPES[output["datatype"]]).tobytes()
        output["parameters"] = {"binary_data_size": len(raw)}
        self.binary({"model_name": "tiny", "outputs": [output]}, raw)

    def reply(self, document: object, status: int = 200) -> None:
        self.text(json.dumps(document).encode(), status)

    def text(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def binary(self, document: object, raw: bytes) -> None:
        head = json.dumps(document).encode()
        self.text(head + raw, Inference_Header_Content_Length=str(len(head)))

    def log_message(self, *_arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # clients that come at once; of more than 5 some would be reset

    def handle_error(self, *arguments: object) -> None:
        """Pass over clients that have gone."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*arguments)  # type: ignore[arg-type]


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """The address of the model "tiny" while the server runs."""
    handler = type("Scripted", (Handler,), {"script": script})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/tiny"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
