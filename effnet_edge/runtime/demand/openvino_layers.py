"""The layers of an OpenVINO IR, looked at in its XML before OpenVINO reads it.

OpenVINO evaluates what a shape is computed from while it reads; so no shape may be computed.
https://docs.openvino.ai/2025/documentation/openvino-ir-format.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.parsers import expat

from effnet_edge.runtime.demand.steps import MOST_STEPS, foreign

if TYPE_CHECKING:
    from typing import NoReturn

LARGEST_XML = 64 << 20
"""Bytes; an l2 in INT8 has a tenth."""

# As XML calls them.
_ELEMENTWISE = frozenset(
    {
        *("Add", "Clamp", "Convert", "Divide", "FakeQuantize", "HSigmoid", "HSwish", "Maximum"),
        *("Minimum", "Multiply", "PReLU", "ReLU", "Sigmoid", "SoftMax", "Subtract", "Swish"),
    }
)
_SHAPED = frozenset(
    {"Pad", "ReduceMax", "ReduceMean", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
_OTHERS = frozenset(
    {"Concat", "Const", "Convolution", "GroupConvolution", "MatMul", "Parameter", "Result"}
)
_ALLOWED = _ELEMENTWISE | _SHAPED | _OTHERS


class _ForeignError(Exception):
    """The IR has what an exported one never has; the text says what."""


def refuse_foreign_ir(xml: bytes, file: object) -> None:
    """Refuse an IR with other layers than exports have, or with a shape that is computed.

    Raises:
        BundleError: naming the file, and what is wrong.
    """
    if len(xml) > LARGEST_XML:
        raise foreign(file, f"it has {len(xml) >> 20} MiB of layers")
    layers = _Layers()
    parser = expat.ParserCreate()
    parser.StartElementHandler = layers.start
    parser.EndElementHandler = layers.end
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(xml, True)
        layers.check()
    except _ForeignError as error:
        raise foreign(file, str(error)) from error
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise foreign(file, f"it is no XML that can be read ({error})") from error


def _refuse_doctype(*_: object) -> NoReturn:
    raise _ForeignError("it has a document type of its own")


class _Layers:
    """What the elements tell, collected while they come."""

    def __init__(self) -> None:
        self._types: dict[str, str] = {}
        self._edges: list[dict[str, str]] = []
        self._layer = ""
        self._ports: int | None = None
        self._depth = 0

    def start(self, element: str, given: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 1 and element != "net":
            raise _ForeignError("it is no OpenVINO model")
        if element == "layer":
            self._start_layer(given.get("id", ""), given.get("type", ""), given.get("name", ""))
        elif element == "input":
            self._ports = 0
        elif element == "port" and self._ports is not None:
            if self._types.get(self._layer) in _SHAPED and given.get("id") != str(self._ports):
                raise _ForeignError(f"its layer {self._layer} has ports of other numbers")
            self._ports += 1
        elif element == "edge":
            self._edges.append(given)

    def end(self, element: str) -> None:
        self._depth -= 1
        if element == "input":
            self._ports = None

    def _start_layer(self, number: str, kind: str, name: str) -> None:
        if kind not in _ALLOWED:
            raise _ForeignError(f"its layer {name!r} is a {kind}")
        if number in self._types:
            raise _ForeignError(f"it has two layers of the number {number}")
        self._types[number] = kind
        self._layer = number
        if len(self._types) > MOST_STEPS:
            raise _ForeignError(f"it has more than {MOST_STEPS} layers")

    def check(self) -> None:
        for edge in self._edges:
            into = self._types.get(edge.get("to-layer", ""))
            from_kind = self._types.get(edge.get("from-layer", ""))
            if into in _SHAPED and edge.get("to-port") != "0" and from_kind != "Const":
                raise _ForeignError(f"its layer {edge.get('to-layer')} computes a shape")
