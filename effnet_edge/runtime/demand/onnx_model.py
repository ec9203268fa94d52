"""An ONNX model read as its bytes, without onnx, which no device has.

Fields: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. What may hold a graph within the
graph, a function or a tensor of another layout is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet_edge.runtime.demand.steps import MOST_DIMENSIONS, MOST_STEPS, ForeignError
from effnet_edge.wire import WireError, fields, varint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MOST_FIELDS = 2_000_000
_MOST_NUMBERS = 64
_EXTERNAL = 1
FLOAT64, INT64, UINT64, STRING = 11, 7, 13, 8
WIDE = frozenset({FLOAT64, INT64, UINT64})


@dataclass(frozen=True)
class Tensor:
    """A constant: its shape, ONNX's number of its type, and its values where they are few."""

    shape: tuple[int, ...]
    type: int
    numbers: tuple[int, ...] | None


@dataclass(frozen=True)
class Attribute:
    """Of a node; what it does not have is 0 or empty."""

    number: int
    numbers: tuple[int, ...]
    text: bytes
    tensor: Tensor | None


@dataclass(frozen=True)
class Node:
    """An operation and the names of its values."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True)
class Input:
    """Its shape, None for what is open, and ONNX's number of its type."""

    shape: tuple[int | None, ...]
    type: int


@dataclass(frozen=True)
class OnnxModel:
    """What of a model tells its memory and its work; nodes are in their order."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    inputs: Mapping[str, Input]


class _Reader:
    """Reads messages, and no more than so many fields of them altogether."""

    def __init__(self) -> None:
        self._left = _MOST_FIELDS

    def each(self, message: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
        for field in fields(message):
            self._left -= 1
            if self._left < 0:
                raise ForeignError(f"it has more than {_MOST_FIELDS} entries")
            yield field


def read_onnx(model: bytes) -> OnnxModel:
    """The graph of a serialized model.

    Raises:
        ForeignError: it has what an exported one never has.
        WireError: it is no protocol buffer.
    """
    reader = _Reader()
    graphs = []
    for number, value in reader.each(model):
        if number in (20, 25):
            raise ForeignError("it has functions or training of its own")
        if number == 7:
            graphs.append(_message(value))
    nodes: list[Node] = []
    constants: dict[str, Tensor] = {}
    inputs: dict[str, Input] = {}
    for graph in graphs:
        for number, value in reader.each(graph):
            if number == 1:
                nodes.append(_node(reader, _message(value)))
            elif number == 5:
                name, tensor = _tensor(reader, _message(value))
                constants[name] = tensor
            elif number == 11:
                name, given = _input(reader, _message(value))
                inputs[name] = given
            elif number == 15:
                raise ForeignError("it has sparse tensors")
    if len(nodes) > MOST_STEPS:
        raise ForeignError(f"it has {len(nodes)} nodes")
    real = {name: each for name, each in inputs.items() if name not in constants}
    return OnnxModel(tuple(nodes), constants, real)


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise WireError("a message is a number")
    return value


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_message(value)).decode()
    except UnicodeDecodeError as error:
        raise WireError("a name is no text") from error


def _number(value: int | memoryview) -> int:
    """A signed 64-bit integer."""
    if not isinstance(value, int):
        raise WireError("a number is none")
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _numbers(value: int | memoryview, most: int) -> list[int]:
    """A repeated integer, one a field or all in one."""
    if isinstance(value, int):
        return [_number(value)]
    found: list[int] = []
    position = 0
    while position < len(value):
        number, position = varint(value, position)
        found.append(_number(number))
        if len(found) > most:
            raise ForeignError(f"a list of numbers is longer than {most}")
    return found


def _node(reader: _Reader, message: memoryview) -> Node:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [""], 4: [""], 7: [""], 8: [""]}
    attributes = {}
    for number, value in reader.each(message):
        if number in texts:
            texts[number].append(_text(value))
        elif number == 5:
            name, attribute = _attribute(reader, _message(value))
            attributes[name] = attribute
    operator, domain, overload = texts[4][-1], texts[7][-1], texts[8][-1]
    if domain not in ("", "ai.onnx") or overload:
        raise ForeignError(f"its node {texts[3][-1]!r} is {domain}.{operator}, no operator of ONNX")
    return Node(operator, texts[3][-1], tuple(texts[1]), tuple(texts[2]), attributes)


def _attribute(reader: _Reader, message: memoryview) -> tuple[str, Attribute]:
    name, text, number, tensor = "", b"", 0, None
    numbers: list[int] = []
    for field, value in reader.each(message):
        if field == 1:
            name = _text(value)
        elif field == 3:
            number = _number(value)
        elif field == 4:
            text = bytes(_message(value)[:64])
        elif field == 5:
            tensor = _tensor(reader, _message(value))[1]
        elif field == 8:
            numbers += _numbers(value, _MOST_NUMBERS)
        elif field in (6, 10, 11, 21, 22, 23):
            raise ForeignError(f"its attribute {name!r} is a graph, or a sparse tensor")
    return name, Attribute(number, tuple(numbers[: _MOST_NUMBERS + 1]), text, tensor)


def _tensor(reader: _Reader, message: memoryview) -> tuple[str, Tensor]:
    name, kind, place = "", 0, 0
    shape: list[int] = []
    raw = memoryview(b"")
    listed: list[int] = []
    for number, value in reader.each(message):
        if number == 1:
            shape += _numbers(value, MOST_DIMENSIONS)
        elif number == 2:
            kind = _number(value)
        elif number in (5, 7) and len(listed) <= _MOST_NUMBERS:
            listed += _few_numbers(value)
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _message(value)
        elif number == 14:
            place = _number(value)
    if len(shape) > MOST_DIMENSIONS or any(side < 0 for side in shape):
        raise ForeignError(f"its tensor {name!r} has an impossible shape")
    elements = math.prod(shape)
    if place != _EXTERNAL and elements > 2 * len(message):
        raise ForeignError(f"its tensor {name!r} claims {elements} numbers that it has not")
    numbers = _values(raw, listed, kind, elements)
    return name, Tensor(tuple(shape), kind, numbers)


def _few_numbers(value: int | memoryview) -> list[int]:
    """The first of a repeated integer: longer lists are no shapes."""
    if isinstance(value, int):
        return [_number(value)]
    return _numbers(value, len(value)) if len(value) <= 10 * _MOST_NUMBERS else []


def _values(raw: memoryview, listed: list[int], kind: int, elements: int) -> tuple[int, ...] | None:
    if kind != INT64 or elements > _MOST_NUMBERS:
        return None
    if not raw:
        return tuple(listed) if len(listed) == elements else None
    if len(raw) != 8 * elements:
        return None
    return tuple(
        int.from_bytes(raw[start : start + 8], "little", signed=True)
        for start in range(0, len(raw), 8)
    )


def _input(reader: _Reader, message: memoryview) -> tuple[str, Input]:
    """Name and shape of a ValueInfoProto, by way of its TypeProto.Tensor."""
    name, kind = "", 0
    shape: list[int | None] = []
    for number, value in reader.each(message):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for choice, tensor in reader.each(_message(value)):
                if choice != 1:
                    raise ForeignError(f"its input {name!r} is no tensor")
                for part, content in reader.each(_message(tensor)):
                    if part == 1:
                        kind = _number(content)
                    elif part == 2:
                        shape += [
                            _side(reader, _message(side))
                            for entry, side in reader.each(_message(content))
                            if entry == 1
                        ]
    return name, Input(tuple(shape), kind)


def _side(reader: _Reader, message: memoryview) -> int | None:
    side = None
    for number, value in reader.each(message):
        if number == 1:
            side = _number(value)
    return side if side is not None and side > 0 else None
