"""Faulty servers by gRPC: one line each and no answer, as by HTTP."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_bundles import CLASSES, PREPROCESSING, SIDE
from triton_server import import_client

from effnet_edge.errors import BackendError, NotFiniteError, ServerError
from effnet_edge.parity.models.served import ServedClassifier
from effnet_edge.serving.model import ServedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.slow, pytest.mark.sample]

TIMEOUT = 2.0
PIXELS = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
ROWS = np.arange(3 * CLASSES, dtype=np.float32).reshape(3, CLASSES)


@contextmanager
def serving(
    infer: Callable[[Any, Any], None], *, ready: bool = True, known: bool = True
) -> Iterator[str]:
    """The address of a model whose answers `infer` fills in, given the answer and the context."""
    import_client()
    import grpc
    from tritonclient.grpc import service_pb2 as messages
    from tritonclient.grpc import service_pb2_grpc as services

    class Scripted(services.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ServerMetadata(self, _request: Any, _context: Any) -> Any:
            return messages.ServerMetadataResponse(name="scripted", version="1")

        def ModelReady(self, _request: Any, _context: Any) -> Any:
            return messages.ModelReadyResponse(ready=ready)

        def ModelMetadata(self, _request: Any, context: Any) -> Any:
            if not known:
                context.abort(grpc.StatusCode.NOT_FOUND, "unknown\nmodel")
            told = messages.ModelMetadataResponse(name="tiny")
            told.inputs.add(name="pixels", datatype="UINT8", shape=[-1, SIDE, SIDE, 3])
            told.outputs.add(name="logits", datatype="FP32", shape=[-1, CLASSES])
            return told

        def ModelInfer(self, request: Any, context: Any) -> Any:
            assert request.raw_input_contents[0] == PIXELS.tobytes()
            answer = messages.ModelInferResponse(model_name="tiny")
            infer(answer, context)
            return answer

    server = grpc.server(ThreadPoolExecutor(2))
    services.add_GRPCInferenceServiceServicer_to_server(Scripted(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}/tiny"
    finally:
        server.stop(0).wait()


def _raw(raw: bytes, **changes: object) -> Callable[[Any, Any], None]:
    output = {"name": "logits", "datatype": "FP32", "shape": [3, CLASSES], **changes}

    def fill(answer: Any, _context: Any) -> None:
        answer.outputs.add(**output)
        answer.raw_output_contents.append(raw)

    return fill


def _numbers(*numbers: float) -> Callable[[Any, Any], None]:
    def fill(answer: Any, _context: Any) -> None:
        tensor = answer.outputs.add(name="logits", datatype="FP32", shape=[3, CLASSES])
        tensor.contents.fp32_contents.extend(numbers)

    return fill


def _abort(code: str, details: str) -> Callable[[Any, Any], None]:
    def fill(_answer: Any, context: Any) -> None:
        import grpc

        context.abort(getattr(grpc.StatusCode, code), details)

    return fill


def _two_outputs(answer: Any, _context: Any) -> None:
    answer.outputs.add(name="logits", datatype="FP32", shape=[3, CLASSES])
    answer.outputs.add(name="other", datatype="FP32", shape=[3, CLASSES])
    answer.raw_output_contents.append(ROWS.tobytes())


def ask(address: str) -> np.ndarray:
    with ServedModel.connect(address, timeout=TIMEOUT) as model:
        return ServedClassifier(model, PREPROCESSING).infer(PIXELS)


@pytest.mark.parametrize("fill", [_raw(ROWS.tobytes()), _numbers(*ROWS.ravel())])
def test_bytes_and_numbers_are_read(fill: Callable[[Any, Any], None]) -> None:
    with serving(fill) as address:
        assert ask(address).tobytes() == ROWS.tobytes()


FAULTS = {
    "late": (lambda *_: time.sleep(2 * TIMEOUT), ServerError, "no whole answer within 2 s"),
    "gone": (_abort("UNAVAILABLE", "bye"), ServerError, "no server of KServe v2 .*: bye"),
    "refused": (
        _abort("INVALID_ARGUMENT", "no\nsuch \x1b[31m shape"),
        BackendError,
        r"refuses the request: no such \\x1b\[31m shape \(gRPC INVALID_ARGUMENT\)",
    ),
    "unspoken": (_abort("UNIMPLEMENTED", "what?"), ServerError, "does not speak KServe v2: what?"),
    "large": (_raw(b"\0" * (1 << 20)), ServerError, "which are the most"),
    "bytes missing": (_raw(ROWS.tobytes()[:-1]), ServerError, "59 bytes for"),
    "other shape": (_raw(ROWS.tobytes(), shape=[5, 3, 2]), ServerError, "60 bytes for"),
    "negative shape": (_raw(ROWS.tobytes(), shape=[-3, -5]), ServerError, "shape is"),
    "too few rows": (_raw(ROWS[:2].tobytes(), shape=[2, 5]), BackendError, "answers 3 pictures"),
    "other output": (_raw(ROWS.tobytes(), name="x"), ServerError, "no output 'logits'"),
    "other type": (_raw(ROWS.tobytes(), datatype="BYTES"), ServerError, "is of BYTES"),
    "numbers missing": (_numbers(1, 2), ServerError, "does not have the 15 numbers"),
    "nothing": (lambda *_: None, ServerError, "no output 'logits'"),
    "one of two": (_two_outputs, ServerError, "2 outputs and the bytes of 1"),
    "NaN": (_numbers(*[1] * 14, float("nan")), NotFiniteError, "picture 3 of 3 has a NaN"),
    "infinity": (_numbers(float("inf"), *[1] * 14), NotFiniteError, "picture 1 of 3 has a NaN"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_by_grpc_is_answered_from(fault: str) -> None:
    fill, kind, text = FAULTS[fault]
    with serving(fill) as address:
        with pytest.raises(kind, match=text) as raised:
            ask(address)
        told = str(raised.value)
    assert told.startswith(f"{address}: ")
    assert "\n" not in told
    assert len(told) < 500


def test_what_is_no_ready_model_by_grpc_is_told() -> None:
    with (
        serving(_numbers(), known=False) as address,
        pytest.raises(
            BackendError,
            match=r"no such model, or it is not ready: unknown model \(gRPC NOT_FOUND\)",
        ),
    ):
        ask(address)
    with (
        serving(_numbers(), ready=False) as address,
        pytest.raises(BackendError, match="the model is not ready"),
    ):
        ask(address)
