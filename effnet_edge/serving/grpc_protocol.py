"""KServe v2 by gRPC, over the stubs that come with Triton's client."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import BackendError, ServerError
from effnet_edge.extras import needed_for
from effnet_edge.serving.description import Description, description_of
from effnet_edge.serving.tensors import of_bytes, of_numbers, raw_bytes, shape_of
from effnet_edge.text import one_plain_line

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from effnet_edge.serving.address import Address
    from effnet_edge.serving.description import ServedTensor

_CONTENTS = {"FP32": "fp32_contents", "FP64": "fp64_contents"}
_CONFIGURATION_EXTENSION = "model_configuration"
_MOST_MESSAGE_BYTES = 1 << 28


class GrpcProtocol:
    """The calls that one model is asked by.

    Raises:
        BackendError: Triton's client is not installed.
    """

    form = "gRPC"

    def __init__(self, address: Address, timeout: float) -> None:
        # gRPC would print what it thinks of a server, beside the one line that a person gets.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        with needed_for("asking a server by gRPC", "serving", "or use its http:// address"):
            import grpc
            from tritonclient.grpc import service_pb2, service_pb2_grpc
        self._address = address
        self._timeout = timeout
        self._messages: Any = service_pb2
        self._channel = grpc.insecure_channel(
            address.server,
            options=[
                ("grpc.max_receive_message_length", _MOST_MESSAGE_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.enable_http_proxy", 0),
                ("grpc.enable_retries", 0),
            ],
        )
        self._calls: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        codes = grpc.StatusCode
        self._lost = {
            codes.UNAVAILABLE,
            codes.CANCELLED,
            codes.RESOURCE_EXHAUSTED,
            codes.DATA_LOSS,
        }
        self._late, self._unspoken = codes.DEADLINE_EXCEEDED, codes.UNIMPLEMENTED
        self._error = grpc.RpcError
        self._model = {"name": address.model, "version": address.version or ""}

    def describe(self) -> Description:
        """Ask for all that the server says of the model; raises as `HttpProtocol.describe`."""
        from google.protobuf.json_format import MessageToDict

        def asked(call: Callable[..., Any], request: Any) -> dict[str, Any]:
            answer = self._ask(call, request)
            told: dict[str, Any] = MessageToDict(answer, preserving_proto_field_name=True)
            return told

        messages, calls = self._messages, self._calls
        server = asked(calls.ServerMetadata, messages.ServerMetadataRequest())
        request = messages.ModelReadyRequest(**self._model)
        try:
            model = asked(calls.ModelMetadata, messages.ModelMetadataRequest(**self._model))
            ready = self._ask(calls.ModelReady, request).ready
        except BackendError as error:
            raise BackendError(
                f"the server has no such model, or it is not ready: {error}"
            ) from error
        if not ready:
            raise BackendError("the model is not ready")
        config: dict[str, Any] = {}
        if _CONFIGURATION_EXTENSION in server.get("extensions", []):
            answer = asked(calls.ModelConfig, messages.ModelConfigRequest(**self._model))
            config = answer.get("config", {})
        return description_of(server, model, config)

    def prepare(self, tensor: ServedTensor, values: NDArray[np.generic], output: str) -> Any:
        """A request for one output, as `send` takes it."""
        request = self._messages.ModelInferRequest(
            model_name=self._address.model, model_version=self._address.version or ""
        )
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=values.shape)
        request.outputs.add(name=output)
        request.raw_input_contents.append(raw_bytes(tensor.datatype, values))
        return request

    def send(self, request: Any, output: str, most_bytes: int) -> NDArray[np.generic]:
        """The values of the output; raises as `ServedModel.send`."""
        try:
            answer = self._ask(self._calls.ModelInfer, request)
        except BackendError as error:
            raise BackendError(f"the server refuses the request: {error}") from error
        if answer.ByteSize() > most_bytes:
            raise ServerError(f"its answer has more than {most_bytes} bytes, which are the most")
        raw = list(answer.raw_output_contents)
        if raw and len(raw) != len(answer.outputs):
            raise ServerError(
                f"its answer has {len(answer.outputs)} outputs and the bytes of {len(raw)}"
            )
        for index, each in enumerate(answer.outputs):
            if each.name == output:
                shape, datatype = shape_of(list(each.shape)), str(each.datatype)
                if raw:
                    return of_bytes(raw[index], datatype, shape)
                numbers = getattr(each.contents, _CONTENTS.get(datatype, ""), ())
                return of_numbers(list(numbers), datatype, shape)
        raise ServerError(f"its answer has no output {output!r}")

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _ask(self, call: Callable[..., Any], request: Any) -> Any:
        try:
            return call(request, timeout=self._timeout)
        except self._error as error:
            code, details = error.code(), one_plain_line(error.details() or "")
            if code is self._late:
                raise ServerError(
                    f"no whole answer within {self._timeout:g} s: see whether the server is busy, "
                    "or give it more time (--timeout)"
                ) from error
            if code in self._lost:
                raise ServerError(f"no server of KServe v2 answers there: {details}") from error
            if code is self._unspoken:
                raise ServerError(
                    f"what answers there does not speak KServe v2: {details}"
                ) from error
            raise BackendError(f"{details} (gRPC {code.name})") from error
