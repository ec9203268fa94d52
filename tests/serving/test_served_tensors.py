"""The parser of answers: what the protocol allows is read as it was meant, the rest is refused."""

from __future__ import annotations

import json
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet_edge.errors import ServerError
from effnet_edge.serving.description import description_of
from effnet_edge.serving.tensors import (
    binary_request,
    json_request,
    most_answer_bytes,
    of_numbers,
    read_answer,
)

FORMATS = {"FP32": "f", "FP64": "d", "FP16": "e", "UINT8": "B"}

floats = st.floats(width=16, allow_nan=False, allow_infinity=False)
tables = st.integers(1, 5).flatmap(
    lambda columns: st.lists(
        st.lists(floats, min_size=columns, max_size=columns), min_size=1, max_size=5
    )
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters", "outputs"])
            | st.sampled_from(["binary_data_size", "inputs", "max_batch_size", "error"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


def packed(rows: list[list[float]], datatype: str) -> bytes:
    flat = [each for row in rows for each in row]
    return struct.pack(f"<{len(flat)}{FORMATS[datatype]}", *flat)


def output(rows: list[list[float]], datatype: str, **more: object) -> dict[str, object]:
    shape = [len(rows), len(rows[0])]
    return {"name": "logits", "datatype": datatype, "shape": shape, **more}


@given(tables, st.sampled_from(["FP16", "FP32", "FP64"]), st.binary(max_size=9), st.booleans())
def test_bytes_are_read_as_they_were_packed(
    rows: list[list[float]], datatype: str, other: bytes, first: bool
) -> None:
    raw = packed(rows, datatype)
    wanted = output(rows, datatype, parameters={"binary_data_size": len(raw)})
    beside = {
        "name": "other",
        "datatype": "UINT8",
        "shape": [len(other)],
        "parameters": {"binary_data_size": len(other)},
    }
    outputs = [wanted, beside] if first else [beside, wanted]
    head = json.dumps({"outputs": outputs}).encode()
    body = head + (raw + other if first else other + raw)
    assert read_answer(body, str(len(head)), "logits").tolist() == rows


@given(tables, st.booleans())
def test_json_is_read_flat_and_nested(rows: list[list[float]], nested: bool) -> None:
    data = rows if nested else [each for row in rows for each in row]
    body = json.dumps({"outputs": [output(rows, "FP32", data=data)]}).encode()
    assert read_answer(body, None, "logits").tolist() == rows


@given(anything, st.binary(max_size=40), st.none() | st.integers(-1, 300) | st.text(max_size=4))
def test_whatever_comes_is_an_array_or_one_kind_of_error(
    document: object, raw: bytes, head: object
) -> None:
    body = json.dumps({"outputs": document}).encode()
    told = None if head is None else str(head)
    for each in (body + raw, raw, body):
        for length in (told, str(len(body))):
            with suppress(ServerError):
                assert isinstance(read_answer(each, length, "logits"), np.ndarray)


@given(tables, st.integers(1, 400), st.binary(min_size=1, max_size=3))
def test_a_changed_answer_is_never_read_in_another_shape(
    rows: list[list[float]], place: int, put: bytes
) -> None:
    raw = packed(rows, "FP32")
    document = {"outputs": [output(rows, "FP32", parameters={"binary_data_size": len(raw)})]}
    head = json.dumps(document).encode()
    for body in (head + raw[:-1], head + raw + put, head + raw[place:] + put * 5):
        if len(body) != len(head) + len(raw):
            with pytest.raises(ServerError, match="bytes"):
                read_answer(body, str(len(head)), "logits")


@given(anything, anything, anything)
def test_whatever_a_server_says_of_a_model_is_a_description_or_one_kind_of_error(
    server: object, inputs: object, config: object
) -> None:
    documents = [each if isinstance(each, dict) else {"name": each} for each in (server, config)]
    model = {"name": "x", "inputs": inputs, "outputs": inputs}
    with suppress(ServerError):
        assert description_of(documents[0], model, documents[1]).least >= 1


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([1.0, "2"], "does not have the 2 numbers"),
        ([1.0, None], "does not have the 2 numbers"),
        ([True, False], "does not have the 2 numbers"),
        ([1.0], "does not have the 2 numbers"),
        ([1, 10**400], "room"),
    ],
)
def test_what_is_no_number_is_refused(numbers: list[object], text: str) -> None:
    with pytest.raises(ServerError, match=text):
        of_numbers(numbers, "FP32", (1, 2))


@pytest.mark.parametrize(
    "shape", [[2**70], [-1, 2], [1.0, 2], "12", [[1], 2], [True, 2], [1] * 9, [0, 2]]
)
def test_what_is_no_shape_is_refused(shape: object) -> None:
    answer = {"name": "logits", "datatype": "FP32", "shape": shape, "data": [1, 2]}
    with pytest.raises(ServerError, match="shape is"):
        read_answer(json.dumps({"outputs": [answer]}).encode(), None, "logits")


def test_json_that_is_nested_too_deep_is_refused() -> None:
    with pytest.raises(ServerError, match="no JSON"):
        read_answer(b"[" * 200_000, None, "logits")


def test_requests_are_what_the_protocol_says() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    body, headers = binary_request("pixels", "UINT8", pixels, "logits")
    length = int(headers["Inference-Header-Content-Length"])
    (tensor,) = json.loads(body[:length])["inputs"]
    assert body[length:] == bytes(range(12))
    assert tensor["parameters"] == {"binary_data_size": 12}
    assert tensor["shape"] == [1, 2, 2, 3]

    body, headers = json_request("pixels", "UINT8", pixels, "logits")
    assert headers == {"Content-Type": "application/json"}
    (tensor,) = json.loads(body)["inputs"]
    assert tensor["data"] == list(range(12))


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float32_comes_through_json_bit_for_bit(value: float) -> None:
    given_value = np.array([[value]], np.float32)
    body, _ = json_request("pixels", "FP32", given_value, "logits")
    (number,) = json.loads(body)["inputs"][0]["data"]
    assert np.float32(number).tobytes() == given_value.tobytes()
    assert len(json.dumps(number)) <= most_answer_bytes(1)
