"""A model behind a server, asked for the answers to batches of its input."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from effnet_edge.errors import BackendError, EffnetEdgeError, NotFiniteError, ServerError
from effnet_edge.serving.address import Address
from effnet_edge.serving.tensors import most_answer_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from numpy.typing import NDArray

    from effnet_edge.serving.description import Description, ServedTensor
    from effnet_edge.serving.http_protocol import TensorForm

TIMEOUT_SECONDS = 60.0
PRECISION_NOT_TOLD = "precision not told"
_LARGEST = float(np.finfo(np.float32).max)
_MOST_NUMBERS_A_PICTURE = 1_000_000
_LONGEST_ERROR = 400


class ServingProtocol(Protocol):
    """KServe v2 over one transport."""

    @property
    def form(self) -> str:
        """How tensors go, in words."""

    def describe(self) -> Description:
        """All that the server says of the model."""

    def prepare(self, tensor: ServedTensor, values: NDArray[np.generic], output: str) -> Any:
        """A request for one output."""

    def send(self, request: Any, output: str, most_bytes: int) -> NDArray[np.generic]:
        """The values that it is answered with."""

    def close(self) -> None:
        """Let the connections go."""


class ServedModel:
    """A connection to a model that is there and ready. May be used by many threads at once.

    Attributes:
        address: where it is.
        description: what the server says of it.
        form: how tensors go: "binary tensors over HTTP", "JSON over HTTP" or "gRPC".
    """

    def __init__(self, address: Address, protocol: ServingProtocol) -> None:
        self.address = address
        self._protocol = protocol
        with self._told():
            self.description = protocol.describe()
        self.form = protocol.form

    @classmethod
    def connect(
        cls, address: str, *, timeout: float = TIMEOUT_SECONDS, form: TensorForm | None = None
    ) -> ServedModel:
        """Ask the server for the model; see `Address` for how it is written.

        Args:
            timeout: seconds for each request with its answer.
            form: of the tensors by HTTP; bytes where the server says that it takes them if None.

        Raises:
            UsageError: it is no address.
            ServerError: no such server answers there, or not in time, or nonsense.
            BackendError: it has no such model, the model is not ready, or what gRPC needs is not
                installed.
        """
        where = Address.parse(address)
        if where.scheme == "grpc":
            from effnet_edge.serving.grpc_protocol import GrpcProtocol

            return cls(where, GrpcProtocol(where, timeout))
        from effnet_edge.serving.http_protocol import HttpProtocol

        return cls(where, HttpProtocol(where, timeout, form))

    def prepare(self, tensor: ServedTensor, values: NDArray[np.generic], output: str) -> Any:
        """A request for the answer of `output` to a batch of the input `tensor`, to be sent."""
        return self._protocol.prepare(tensor, values, output)

    def send(self, request: Any, output: str, pictures: int) -> NDArray[np.generic]:
        """The answer to a prepared request: a row of finite numbers for each of the pictures.

        Raises:
            ServerError: there is no answer, not in time, or nonsense: of another length, of no
                numbers.
            NotFiniteError: it has a NaN, an infinity, or a number beyond float32.
            BackendError: the server refuses the request, or answers other than with a row a
                picture.
        """
        told = next((each for each in self.description.outputs if each.name == output), None)
        sizes = told.shape[1:] if told else (None,)
        numbers = math.prod(each or _MOST_NUMBERS_A_PICTURE for each in sizes)
        most = most_answer_bytes(pictures * min(numbers, _MOST_NUMBERS_A_PICTURE))
        with self._told():
            answer = self._protocol.send(request, output, most)
            if not answer.ndim or len(answer) != pictures:
                raise BackendError(
                    f"it answers {pictures} pictures with an array of shape {answer.shape}"
                )
            sizes_of_all = np.abs(answer.reshape(pictures, -1).astype(np.float64))
            finite = (sizes_of_all <= _LARGEST).all(axis=1)  # a NaN compares as false
            if not finite.all():
                raise NotFiniteError(
                    f"its answer to picture {int(np.argmin(finite)) + 1} of {pictures} has a NaN, "
                    "an infinity, or a number that float32 has no room for"
                )
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._protocol.close()

    def __enter__(self) -> ServedModel:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say in each error which model it is of, in a line of bounded length."""
        try:
            yield
        except (ServerError, BackendError) as error:
            raise type(error)(self._line(error)) from error

    def _line(self, error: EffnetEdgeError) -> str:
        named = f"{self.address}: {error}"
        return named if len(named) <= _LONGEST_ERROR else f"{named[:_LONGEST_ERROR]} …"
