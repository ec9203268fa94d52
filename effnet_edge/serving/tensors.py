"""Tensors of KServe v2 in bytes and in JSON. What comes from a server is believed in nothing."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BINARY_SIZE = "binary_data_size"

# The protocol's names of what pictures and answers may be made of; numbers are little-endian.
_DTYPES = {"UINT8": "|u1", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_MOST_AXES = 8
_LONGEST_AXIS = 1 << 24
_MOST_JSON_BYTES_A_NUMBER = 32
_MOST_BYTES_BESIDE = 1 << 16


def numpy_name(datatype: str) -> str:
    """NumPy's name of a type of the protocol; the protocol's in lower case where it has another."""
    return np.dtype(_DTYPES[datatype]).name if datatype in _DTYPES else datatype.lower()


def most_answer_bytes(numbers: int) -> int:
    """More than an honest answer of so many numbers takes, in JSON or in bytes."""
    return _MOST_BYTES_BESIDE + _MOST_JSON_BYTES_A_NUMBER * numbers


def json_request(
    name: str, datatype: str, values: NDArray[np.generic], output: str
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a request whose numbers are written in JSON."""
    tensor = {**_described(name, datatype, values), "data": values.ravel().tolist()}
    body = json.dumps({"inputs": [tensor], "outputs": [{"name": output}]})
    return body.encode(), {"Content-Type": "application/json"}


def binary_request(
    name: str, datatype: str, values: NDArray[np.generic], output: str
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a request whose numbers follow the JSON as bytes."""
    raw = raw_bytes(datatype, values)
    tensor = {**_described(name, datatype, values), "parameters": {BINARY_SIZE: len(raw)}}
    wanted = {"name": output, "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
    return head + raw, {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }


def raw_bytes(datatype: str, values: NDArray[np.generic]) -> bytes:
    """The values as the protocol writes them in bytes."""
    return np.ascontiguousarray(values, _DTYPES[datatype]).tobytes()


def read_answer(body: bytes, head_length: str | None, output: str) -> NDArray[np.generic]:
    """The values of an output in the body of an answer, which may be followed by bytes.

    Args:
        head_length: what the header Inference-Header-Content-Length says; None where there is none.

    Raises:
        ServerError: it is no such answer; the text says why.
    """
    length = len(body) if head_length is None else _head_length(head_length, len(body))
    document = parse_json(body[:length])
    outputs = _sequence(document, "outputs")
    raw, start = body[length:], 0
    found: NDArray[np.generic] | None = None
    for each in outputs:
        size = _binary_size(each)
        if each.get("name") == output and found is None:
            shape, datatype = shape_of(each.get("shape")), str(each.get("datatype"))
            part = None if size is None else raw[start : start + size]
            found = (
                _of_json(each, datatype, shape) if part is None else of_bytes(part, datatype, shape)
            )
        start += size or 0
    if start != len(raw):
        raise ServerError(f"its answer has {len(raw)} bytes of numbers and says {start}")
    if found is None:
        names = ", ".join(repr(str(each.get("name"))[:100]) for each in outputs[:5]) or "none"
        raise ServerError(f"its answer has no output {output!r}, but {names}")
    return found


def of_bytes(raw: bytes, datatype: str, shape: Sequence[int]) -> NDArray[np.generic]:
    """The array that the bytes are; raises ServerError where type, shape and length disagree."""
    dtype, count = _dtype(datatype), math.prod(shape)
    if len(raw) != count * dtype.itemsize:
        raise ServerError(
            f"its answer has {len(raw)} bytes for {_told(shape)} of {datatype}, which takes "
            f"{count * dtype.itemsize}"
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def of_numbers(numbers: Sequence[Any], datatype: str, shape: Sequence[int]) -> NDArray[np.generic]:
    """The array that the numbers are; raises ServerError where they are none, or not so many."""
    dtype, count = _dtype(datatype), math.prod(shape)
    if len(numbers) != count or not all(type(each) in (int, float) for each in numbers):
        raise ServerError(f"its answer does not have the {count} numbers that {_told(shape)} takes")
    try:
        with np.errstate(over="ignore"):
            return np.array(numbers, np.float64).astype(dtype).reshape(shape)
    except OverflowError as error:
        raise ServerError("its answer has a number that no type has room for") from error


def shape_of(value: object) -> tuple[int, ...]:
    """A shape of an answer; raises ServerError for what is none."""
    sizes = value if isinstance(value, (list, tuple)) else [None]
    fit = (type(each) is int and 1 <= each <= _LONGEST_AXIS for each in sizes)
    if len(sizes) > _MOST_AXES or not all(fit):
        raise ServerError(f"its answer's shape is {str(value)[:100]}")
    return tuple(sizes)


def parse_json(text: bytes) -> dict[str, Any]:
    """A JSON object; raises ServerError for anything else."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ServerError(f"its answer is no JSON, but {_begin(text)}") from error
    if not isinstance(document, dict):
        raise ServerError(f"its answer is no JSON object, but {_begin(text)}")
    return document


def _described(name: str, datatype: str, values: NDArray[np.generic]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(values.shape)}


def _head_length(told: str, whole: int) -> int:
    if not (told.isascii() and told.isdigit()) or len(told) > 12 or int(told) > whole:
        raise ServerError(f"its answer's JSON is said to take {told[:40]!r} of {whole} bytes")
    return int(told)


def _sequence(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ServerError(f"its answer has no {key}")
    return found


def _binary_size(output: dict[str, Any]) -> int | None:
    parameters = output.get("parameters")
    size = parameters.get(BINARY_SIZE) if isinstance(parameters, dict) else None
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise ServerError(f"its answer's {BINARY_SIZE} is {str(size)[:40]}")
    return size


def _of_json(output: dict[str, Any], datatype: str, shape: Sequence[int]) -> NDArray[np.generic]:
    numbers = output.get("data")
    for _ in shape[1:]:  # the protocol allows flat lists and nested ones
        if not isinstance(numbers, list) or not all(isinstance(each, list) for each in numbers):
            break
        numbers = [each for row in numbers for each in row]
    if not isinstance(numbers, list):
        raise ServerError(f"its answer has no numbers of the output {output.get('name')!r}")
    return of_numbers(numbers, datatype, shape)


def _dtype(datatype: str) -> np.dtype[Any]:
    if datatype not in _DTYPES:
        raise ServerError(
            f"its answer is of {datatype[:40]}; logits, probabilities and features are floating-"
            "point numbers"
        )
    return np.dtype(_DTYPES[datatype])


def _told(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"


def _begin(text: bytes) -> str:
    return repr(text[:60].decode("utf-8", "replace")) if text else "nothing"
