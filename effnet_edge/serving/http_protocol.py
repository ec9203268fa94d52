"""KServe v2 by HTTP: tensors as bytes where the server has that extension, else in JSON."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from effnet_edge.errors import BackendError, ServerError
from effnet_edge.serving.description import Description, description_of
from effnet_edge.serving.exchange import HttpExchange
from effnet_edge.serving.tensors import binary_request, json_request, parse_json, read_answer
from effnet_edge.text import one_plain_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from effnet_edge.serving.address import Address
    from effnet_edge.serving.description import ServedTensor
    from effnet_edge.serving.exchange import Reply

TensorForm = Literal["binary", "json"]

_BINARY_EXTENSION = "binary_tensor_data"
_CONFIGURATION_EXTENSION = "model_configuration"
_MOST_DESCRIPTION_BYTES = 1 << 22
_GONE = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)


class HttpProtocol:
    """The requests that one model is asked by.

    Args:
        form: of the tensors; what the server says that it has if None.
    """

    def __init__(self, address: Address, timeout: float, form: TensorForm | None = None) -> None:
        self._address = address
        self._form = form
        self._exchange = HttpExchange(address.host, address.port, timeout)

    @property
    def form(self) -> str:
        """How tensors go, in words; known once the model was described."""
        return "JSON over HTTP" if self._form == "json" else "binary tensors over HTTP"

    def describe(self) -> Description:
        """Ask for all that the server says of the model.

        Raises:
            ServerError: what answers is no such server.
            BackendError: it has no such model, or the model is not ready.
        """
        server = self._document("/v2")
        if server is None or not isinstance(server.get("name"), str):
            raise ServerError(
                "it is no server of KServe v2 (Open Inference Protocol): it does not answer GET "
                "/v2 with its name"
            )
        told = server.get("extensions")
        extensions = told if isinstance(told, list) else []
        ready = self._get(f"{self._address.path}/ready")
        reply = self._get(self._address.path)
        if reply.status != HTTPStatus.OK:
            raise BackendError(
                f"the server has no such model, or it is not ready: {_reason(reply)}"
            )
        if ready.status != HTTPStatus.OK or _says_not_ready(ready):
            raise BackendError(f"the model is not ready: {_reason(ready)}")
        model, config = parse_json(reply.body), None
        if _CONFIGURATION_EXTENSION in extensions:
            config = self._document(f"{self._address.path}/config")
        if self._form is None:
            self._form = "binary" if _BINARY_EXTENSION in extensions else "json"
        return description_of(server, model, config or {})

    def prepare(
        self, tensor: ServedTensor, values: NDArray[np.generic], output: str
    ) -> tuple[bytes, dict[str, str]]:
        """A request for one output, as `send` takes it."""
        make = json_request if self._form == "json" else binary_request
        return make(tensor.name, tensor.datatype, values, output)

    def send(
        self, request: tuple[bytes, dict[str, str]], output: str, most_bytes: int
    ) -> NDArray[np.generic]:
        """The values of the output; raises as `ServedModel.send`."""
        body, headers = request
        reply = self._exchange.ask(
            "POST", f"{self._address.path}/infer", body, headers, most_bytes=most_bytes
        )
        if reply.status in _GONE:
            raise ServerError(f"the server is not there for now: {_reason(reply)}")
        if reply.status != HTTPStatus.OK:
            raise BackendError(f"the server refuses the request: {_reason(reply)}")
        return read_answer(reply.body, reply.headers.get("inference-header-content-length"), output)

    def close(self) -> None:
        """Close the connections."""
        self._exchange.close()

    def _get(self, path: str) -> Reply:
        return self._exchange.ask("GET", path, most_bytes=_MOST_DESCRIPTION_BYTES)

    def _document(self, path: str) -> dict[str, Any] | None:
        reply = self._get(path)
        return parse_json(reply.body) if reply.status == HTTPStatus.OK else None


def _says_not_ready(reply: Reply) -> bool:
    """Whether a body, which the protocol does not ask for, says so."""
    try:
        return parse_json(reply.body).get("ready") is False
    except ServerError:
        return False


def _reason(reply: Reply) -> str:
    """What the server says, in words; the status where that is nothing."""
    status = f"HTTP status {reply.status}"
    try:
        document = parse_json(reply.body)
    except ServerError:
        return status
    error = document.get("error") or document.get("detail")
    return f"{one_plain_line(error)} ({status})" if isinstance(error, str) else status
