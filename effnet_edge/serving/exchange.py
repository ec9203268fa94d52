"""Requests by HTTP/1.1 with a limit on their time and on what is read, whatever the server does.

It is the standard library's client: it follows no redirect, uses no proxy, decompresses nothing and
keeps its hands off what is no HTTP. What it lacks is a limit on the whole of an answer, which a
server may send byte by byte for ever.
"""

from __future__ import annotations

import http.client
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from effnet_edge.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_READ_AT_ONCE = 1 << 16
_BROKEN = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)


@dataclass(frozen=True)
class Reply:
    """What a server answers; the names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpExchange:
    """Connections to one server, each used by one thread at a time, as many as threads ask at once.

    Args:
        timeout: seconds for a request and the whole of its answer.
    """

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self._host, self._port = host, port
        self._timeout = timeout
        self._idle: SimpleQueue[_Connection] = SimpleQueue()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        most_bytes: int,
    ) -> Reply:
        """The server's answer, whatever its status.

        Raises:
            ServerError: there is none in time, it is no HTTP, cut off, longer than `most_bytes`, or
                sends elsewhere.
        """
        deadline = time.monotonic() + self._timeout
        with self._told():
            try:
                connection, is_new = self._idle.get_nowait(), False
            except Empty:
                connection, is_new = _Connection(self._host, self._port), True
            try:
                response = connection.begin(method, path, body, headers or {}, deadline)
            except _BROKEN:
                connection.close()
                if is_new:
                    raise
                # The server may close a connection that nobody used for a while.
                connection = _Connection(self._host, self._port)
                response = connection.begin(method, path, body, headers or {}, deadline)
            return self._read(connection, response, most_bytes)

    def close(self) -> None:
        """Close the connections that are not in use."""
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return

    def _read(
        self, connection: _Connection, response: http.client.HTTPResponse, most_bytes: int
    ) -> Reply:
        whole = False
        try:
            body = _body(response, most_bytes)
            headers = {name.lower(): value for name, value in response.getheaders()}
            if 300 <= response.status < 400:
                where = headers.get("location", "elsewhere")[:200]
                raise ServerError(f"the server sends on to {where}, which is not followed")
            whole = not response.will_close
        finally:
            response.close()
            if whole:
                self._idle.put(connection)
            else:
                connection.close()
        return Reply(response.status, headers, body)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise ServerError(
                f"no whole answer within {self._timeout:g} s: see whether the server "
                "is busy, or give it more time (--timeout)"
            ) from error
        except _BROKEN as error:
            raise ServerError("the server closed the connection before it had answered") from error
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ServerError(f"no server can be reached there: {reason}") from error
        except (http.client.HTTPException, ValueError) as error:
            raise ServerError(_told_protocol_error(error)) from error


class _Socket(socket.socket):
    """A socket that waits until a deadline, however often it is read from."""

    deadline = 0.0

    def limit(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)

    def recv_into(self, *arguments: object, **options: object) -> int:
        self.limit()
        return super().recv_into(*arguments, **options)  # type: ignore[arg-type]

    def sendall(self, *arguments: object) -> None:
        self.limit()  # which then holds for the whole of what is sent
        super().sendall(*arguments)  # type: ignore[arg-type]


class _Connection(http.client.HTTPConnection):
    sock: _Socket | None

    def begin(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        deadline: float,
    ) -> http.client.HTTPResponse:
        """Send the request and read the answer's headers."""
        if self.sock is None:
            self.sock = _connected(self.host, self.port, deadline)
        self.sock.deadline = deadline
        try:
            self.request(method, path, body, dict(headers))
            return self.getresponse()
        except BaseException:
            self.close()
            raise


def _connected(host: str, port: int, deadline: float) -> _Socket:
    left = max(deadline - time.monotonic(), 0.001)
    plain = socket.create_connection((host, port), left)
    limited = _Socket(plain.family, plain.type, plain.proto, plain.detach())
    limited.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return limited


def _body(response: http.client.HTTPResponse, most_bytes: int) -> bytes:
    told = response.length  # None where it is chunked or ends with the connection
    if told is not None and told > most_bytes:
        raise ServerError(f"its answer is said to have {told} bytes, and {most_bytes} are the most")
    parts, length = [], 0
    while part := response.read(_READ_AT_ONCE):
        parts.append(part)
        length += len(part)
        if length > most_bytes:
            raise ServerError(f"its answer has more than {most_bytes} bytes, which are the most")
    if told is not None and length < told:
        raise ServerError(f"its answer ends after {length} of {told} bytes")
    return b"".join(parts)


def _told_protocol_error(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "its answer ends in the midst"
    return (
        f"what answers there speaks no HTTP ({type(error).__name__}): if it is the port of gRPC, "
        "give grpc:// instead of http://"
    )
