"""Servers that are late, gone, broken or hostile: one line each, in bounded time, and no answer."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import Handler, Script, serving
from tiny_bundles import CLASSES, PREPROCESSING, SIDE

from effnet_edge.errors import BackendError, NotFiniteError, ServerError, UsageError
from effnet_edge.parity.models.served import ServedClassifier
from effnet_edge.serving.address import Address
from effnet_edge.serving.model import ServedModel

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

TIMEOUT = 1.0
PIXELS = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)


def rows_of(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    sums = batch.reshape(len(batch), -1).sum(axis=1, dtype=np.float32)
    return (sums[:, None] * np.arange(1, CLASSES + 1, dtype=np.float32) / 1000).astype(np.float32)


def scripted(**changes: object) -> Script:
    return Script(rows_of, [-1, SIDE, SIDE, 3], **changes)  # type: ignore[arg-type]


def ask(address: str, timeout: float = TIMEOUT) -> npt.NDArray[np.float32]:
    with ServedModel.connect(address, timeout=timeout) as model:
        return ServedClassifier(model, PREPROCESSING).infer(PIXELS)


def test_a_sound_server_is_answered_from() -> None:
    with serving(scripted()) as address:
        assert ask(address).tobytes() == rows_of(PIXELS).tobytes()


def _late(_handler: Handler) -> None:
    time.sleep(3 * TIMEOUT)


def _dripping(head: bytes, drop: bytes) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.wfile.write(head)
        for _ in range(30):
            handler.wfile.write(drop)
            handler.wfile.flush()
            time.sleep(0.2)

    return answer


def _continuing_for_ever(handler: Handler) -> None:
    _write_on(handler, b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def _endless(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    _write_on(handler, b"[" * 65536)


def _endless_chunks(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    _write_on(handler, b"FFFF\r\n" + b" " * 65535 + b"\r\n")


def _write_on(handler: Handler, part: bytes) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        handler.wfile.write(part)


def _raw(text: bytes) -> Callable[[Handler], None]:
    def write(handler: Handler) -> None:
        handler.wfile.write(text)
        handler.close_connection = True

    return write


def _output(**changes: object) -> Callable[[Handler], None]:
    rows = rows_of(PIXELS)
    output = {"name": "logits", "datatype": "FP32", "shape": list(rows.shape)}
    data = {"data": rows.ravel().tolist()}
    return lambda handler: handler.reply({"outputs": [{**output, **data, **changes}]})


def _with_raw(raw: bytes, size: object = None, shape: object = (3, CLASSES)) -> object:
    output = {"name": "logits", "datatype": "FP32", "shape": shape}
    output["parameters"] = {"binary_data_size": len(raw) if size is None else size}
    return lambda handler: handler.binary({"outputs": [output]}, raw)


def _numbers(*values: float) -> bytes:
    return np.resize(np.array(values, np.float32), 3 * CLASSES).tobytes()


def _closing(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


FAULTS = {
    "late": (_late, ServerError, "no whole answer within 1 s"),
    "drip": (
        _dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"{"),
        ServerError,
        "no whole answer within 1 s",
    ),
    "dripping headers": (
        _dripping(b"HTTP/1.1 200 OK\r\n", b"X"),
        ServerError,
        "no whole answer within 1 s",
    ),
    "100 for ever": (_continuing_for_ever, ServerError, "no whole answer within 1 s"),
    "endless": (_endless, ServerError, "which are the most"),
    "endless chunks": (_endless_chunks, ServerError, "which are the most"),
    "closed": (_closing, ServerError, "closed the connection before it had answered"),
    "huge length": (
        _raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n{"),
        ServerError,
        "said to have 99999999999999 bytes",
    ),
    "short of its length": (
        _raw(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{}"),
        ServerError,
        "ends after 2 of 90 bytes",
    ),
    "cut chunk": (
        _raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}"),
        ServerError,
        "ends in the midst",
    ),
    "no HTTP": (_raw(b"\x00\x01\x02 garbage\r\n\r\n"), ServerError, "speaks no HTTP"),
    "long line": (_raw(b"HTTP/1.1 200 " + b"A" * 70000), ServerError, "speaks no HTTP"),
    "many headers": (
        _raw(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"),
        ServerError,
        "speaks no HTTP",
    ),
    "no JSON": (lambda handler: handler.text(b"<html>"), ServerError, "no JSON, but '<html>'"),
    "a list": (lambda handler: handler.text(b"[1]"), ServerError, "no JSON object"),
    "empty": (lambda handler: handler.text(b""), ServerError, "but nothing"),
    "head beyond": (
        lambda handler: handler.text(b"{}", Inference_Header_Content_Length="3"),
        ServerError,
        "said to take '3' of 2 bytes",
    ),
    "head negative": (
        lambda handler: handler.text(b"{}", Inference_Header_Content_Length="-1"),
        ServerError,
        "said to take '-1' of 2 bytes",
    ),
    "an error": (
        lambda handler: handler.reply({"error": "out\nof \x1b[31mmemory"}, 500),
        BackendError,
        r"refuses the request: out of \\x1b\[31mmemory \(HTTP status 500\)",
    ),
    "overloaded": (
        lambda handler: handler.reply({"error": "later"}, 503),
        ServerError,
        "is not there for now: later",
    ),
    "other output": (_output(name="other"), ServerError, "no output 'logits', but 'other'"),
    "other type": (_output(datatype="BYTES"), ServerError, "is of BYTES"),
    "integers": (_output(datatype="UINT8", data=[1] * 15), BackendError, "is uint8"),
    "too few rows": (
        _output(shape=[2, CLASSES], data=[1.0] * 10),
        BackendError,
        r"answers 3 pictures with an array of shape \(2, 5\)",
    ),
    "too few numbers": (_output(data=[1.0]), ServerError, "does not have the 15 numbers"),
    "NaN in JSON": (_output(data=[float("nan")] * 15), NotFiniteError, "picture 1 of 3 has a NaN"),
    "huge in JSON": (_output(data=[1e300] * 15), NotFiniteError, "picture 1 of 3 has a NaN"),
    "huge in FP64": (
        _output(datatype="FP64", data=[1.0] * 14 + [1e300]),
        NotFiniteError,
        "picture 3 of 3 has a NaN",
    ),
    "NaN": (_with_raw(_numbers(1, np.nan)), NotFiniteError, "picture 1 of 3 has a NaN"),
    "infinity": (
        _with_raw(_numbers(*[1] * 10, -np.inf, 1, 1, 1, 1)),
        NotFiniteError,
        "picture 3 of 3 has a NaN, an infinity",
    ),
    "bytes missing": (_with_raw(_numbers(1)[:-1]), ServerError, "59 bytes for"),
    "bytes left": (_with_raw(_numbers(1) + b"1234", 60), ServerError, "64 bytes of numbers"),
    "negative size": (_with_raw(_numbers(1), -60), ServerError, "binary_data_size is -60"),
    "huge shape": (_with_raw(_numbers(1), shape=[2**60]), ServerError, "shape is"),
    "other shape": (_with_raw(_numbers(1), shape=[3, 4]), ServerError, "60 bytes for"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_is_answered_from(fault: str) -> None:
    infer, kind, text = FAULTS[fault]
    with serving(scripted(infer=infer)) as address:
        with pytest.raises(kind, match=text) as raised:
            ask(address)
        told = str(raised.value)
        assert told.startswith(f"{address}: ")
        assert "\n" not in told
        assert len(told) < 500


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match="no server can be reached there: Connection refused"):
            ask(f"http://127.0.0.1:{port}/tiny")


def test_a_server_that_accepts_and_says_nothing_is_late() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(ServerError, match="no whole answer within 0.2 s"):
            ask(f"http://127.0.0.1:{deaf.getsockname()[1]}/tiny", timeout=0.2)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("page", ["/v2", "/v2/models/tiny", "infer"])
def test_nobody_is_sent_elsewhere(status: int, page: str) -> None:
    elsewhere = scripted()
    with serving(elsewhere) as other:
        place = other.replace("/tiny", "/v2")

        def redirect(handler: Handler) -> None:
            handler.text(b"", status, Location=place)

        script = scripted(pages={page: redirect})
        script.infer = redirect if page == "infer" else None
        with (
            serving(script) as address,
            pytest.raises(ServerError, match=f"sends on to {place}, which is not followed"),
        ):
            ask(address)
    assert elsewhere.asked == []


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(scripted()) as address:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.delenv("no_proxy", raising=False)
        assert len(ask(address)) == 3


@pytest.mark.parametrize(
    ("page", "status", "document", "text"),
    [
        ("/v2", 404, {}, "is no server of KServe v2"),
        ("/v2", 200, {"greeting": "hello"}, "is no server of KServe v2"),
        (
            "/v2/models/tiny",
            404,
            {"error": "unknown"},
            r"no such model, or it is not ready: unknown \(HTTP status 404",
        ),
        ("/v2/models/tiny/ready", 400, {"error": "loading"}, "is not ready: loading"),
        ("/v2/models/tiny/ready", 200, {"ready": False}, "is not ready"),
        ("/v2/models/tiny", 200, {"inputs": 3}, "no list of inputs"),
        ("/v2/models/tiny", 200, {"inputs": []}, "has no input"),
        ("/v2/models/tiny/config", 200, {"max_batch_size": -3}, "max_batch_size of -3"),
        ("/v2/models/tiny/config", 200, {"max_batch_size": "many"}, "no number"),
    ],
)
def test_what_is_no_ready_model_is_told(
    page: str, status: int, document: object, text: str
) -> None:
    script = scripted(pages={page: lambda handler: handler.reply(document, status)})
    with serving(script) as address, pytest.raises((ServerError, BackendError), match=text):
        ask(address)


@pytest.mark.parametrize(
    ("shape", "datatype", "text"),
    [
        ([-1, SIDE, SIDE], "UINT8", "no input for a batch of pictures"),
        ([-1, 3, SIDE, SIDE], "BYTES", "'pixels' is bytes"),
        ([-1, 3, SIDE, SIDE], "BF16", "'pixels' is bf16"),
        ([-1, 0, 3, 3], "FP32", "an axis of 0"),
        ([-1, 10**30, 3, 3], "FP32", "an axis of 1000"),
    ],
)
def test_inputs_that_take_no_pictures_are_refused(
    shape: list[int], datatype: str, text: str
) -> None:
    script = Script(rows_of, shape, datatype)
    with serving(script) as address, pytest.raises((ServerError, BackendError), match=text):
        ask(address)


def test_a_connection_that_the_server_let_go_is_made_anew() -> None:
    script = scripted()
    with serving(script) as address, ServedModel.connect(address, timeout=TIMEOUT) as model:
        classifier = ServedClassifier(model, PREPROCESSING)
        first = classifier.infer(PIXELS)
        script.infer = _closing
        with pytest.raises(ServerError, match="closed the connection"):
            classifier.infer(PIXELS)
        script.infer = None
        assert classifier.infer(PIXELS).tolist() == first.tolist()


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("https://127.0.0.1:8000/tiny", "https:// is not spoken here"),
        ("ftp://127.0.0.1:8000/tiny", "ftp:// is not spoken here"),
        ("http://127.0.0.1/tiny", "give http://HOST:PORT/MODEL"),
        ("http://127.0.0.1:8000", "give http://HOST:PORT/MODEL"),
        ("http://127.0.0.1:8000/", "give http://HOST:PORT/MODEL"),
        ("http://127.0.0.1:8000/a/b", "give http://HOST:PORT/MODEL"),
        ("http://127.0.0.1:8000/a/versions/", "give http://HOST:PORT/MODEL"),
        ("http://me:secret@127.0.0.1:8000/a", "give http://HOST:PORT/MODEL"),
        ("http://127.0.0.1:8000/a?b=c", "give http://HOST:PORT/MODEL"),
        ("http://127.0.0.1:eight/a", "no address"),
        ("http://[::1/a", "no address"),
    ],
)
def test_what_is_no_address_is_refused(address: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        ServedModel.connect(address)


@given(st.text(max_size=30) | st.from_regex(r"(http|grpc)://[a-z.:0-9\[\]@]{1,20}/[^?#]{0,20}"))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    with suppress(UsageError):
        address = Address.parse(text)
        assert address.path.isascii()
        assert address.path.count("/") == (5 if address.version else 3)


def test_names_are_escaped_and_the_protocols_own_path_is_taken() -> None:
    script = scripted()
    with serving(script) as address:
        ask(address.replace("/tiny", "/v2/models/tiny"))
        with pytest.raises(BackendError, match="no such model"):
            ask(address.replace("/tiny", "/a%2Fb%20c/versions/7"))
    assert "/v2/models/a%2Fb%20c/versions/7" in script.asked
    assert json.dumps(script.asked).count("/v2/models/tiny/infer") == 1
