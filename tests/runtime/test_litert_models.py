"""LiteRT files that no export makes are refused in one line before LiteRT reads them."""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundles import SIDE, tiny_model

from effnet_edge.errors import BundleError
from effnet_edge.graphs.litert_file import ALIGNMENT, import_schema, pack, unpack
from effnet_edge.runtime.demand.litert_steps import checked_litert
from effnet_edge.runtime.litert_interpreter import LiteRtInterpreter
from effnet_export.litert.writing import litert_file

if TYPE_CHECKING:
    from collections.abc import Callable

FILE = "model.tflite"


@cache
def sound() -> bytes:
    return litert_file(tiny_model(batch="N"))


def refused(content: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        checked_litert(content, FILE)
    text = str(caught.value)
    assert text.startswith(f"{FILE}: ")
    assert len(text.splitlines()) == 1
    return text


def operator(model: Any, kind: str) -> Any:
    number = getattr(import_schema().BuiltinOperator, kind)
    codes = [each.builtinCode for each in model.operatorCodes]
    return next(each for each in model.subgraphs[0].operators if codes[each.opcodeIndex] == number)


def tensor(model: Any, name: str) -> Any:
    return next(each for each in model.subgraphs[0].tensors if each.name == name.encode())


def other_operator(model: Any) -> None:
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = 32


def operator_of_other_people(model: Any) -> None:
    model.operatorCodes[0].customCode = "Erf"


def another_graph(model: Any) -> None:
    model.subgraphs.append(model.subgraphs[0])


def variable(model: Any) -> None:
    tensor(model, "conv").isVariable = True


def sparse(model: Any) -> None:
    tensor(model, "kernel").sparsity = import_schema().SparsityParametersT()


def no_such_tensor(model: Any) -> None:
    operator(model, "CONV_2D").inputs = [99999, 1, 2]


def negative_tensor(model: Any) -> None:
    operator(model, "CONV_2D").inputs = [-5, 1, 2]


def no_such_buffer(model: Any) -> None:
    tensor(model, "kernel").buffer = 99999


def no_such_code(model: Any) -> None:
    operator(model, "CONV_2D").opcodeIndex = 77


def nothing_made_it(model: Any) -> None:
    number = next(iter(operator(model, "CONV_2D").outputs))
    model.subgraphs[0].operators = [
        each for each in model.subgraphs[0].operators if list(each.outputs) != [number]
    ]


def short_weights(model: Any) -> None:
    model.buffers[tensor(model, "kernel").buffer].data = np.zeros(7, np.uint8)


def computed_weights(model: Any) -> None:
    given, *_ = operator(model, "CONV_2D").inputs
    operator(model, "CONV_2D").inputs = [given, given, given]


def other_shape(model: Any) -> None:
    tensor(model, "conv").shape = [1, 6, 6, 9]


def shape_below_nothing(model: Any) -> None:
    tensor(model, "conv").shape = [1, -6, 6, 8]


def open_height(model: Any) -> None:
    tensor(model, "conv").shapeSignature = [-1, -1, 6, 8]


def no_stride(model: Any) -> None:
    operator(model, "CONV_2D").builtinOptions.strideH = 0


def axis_that_is_none(model: Any) -> None:
    axes = operator(model, "MEAN").inputs[1]
    buffer = model.subgraphs[0].tensors[axes].buffer
    model.buffers[buffer].data = np.array([1, 77], np.int32).view(np.uint8)


def integers_without_a_grid(model: Any) -> None:
    for name in ("conv", "relu"):
        tensor(model, name).type = import_schema().TensorType.INT8


def pixels_without_a_grid(model: Any) -> None:
    number = import_schema().BuiltinOperator.DEQUANTIZE
    code = model.operatorCodes[operator(model, "CAST").opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.version = 2


def bias_of_another_length(model: Any) -> None:
    bias = tensor(model, "bias")
    bias.shape = [3]
    model.buffers[bias.buffer].data = np.zeros(12, np.uint8)


LIES = [
    other_operator,
    operator_of_other_people,
    another_graph,
    variable,
    sparse,
    no_such_tensor,
    negative_tensor,
    no_such_buffer,
    no_such_code,
    nothing_made_it,
    short_weights,
    computed_weights,
    other_shape,
    shape_below_nothing,
    open_height,
    no_stride,
    axis_that_is_none,
    integers_without_a_grid,
    bias_of_another_length,
    pixels_without_a_grid,
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_what_no_export_has_is_refused(lie: Callable[[Any], None]) -> None:
    model = unpack(sound())
    lie(model)
    assert "no EfficientNet is exported so" in refused(pack(model))


def test_the_sound_one_is_not() -> None:
    assert pack(unpack(sound())) == sound()
    checked_litert(sound(), FILE)


def test_room_that_nobody_has_is_refused() -> None:
    model = unpack(sound())
    sides = {SIDE: 30_000, SIDE - 2: 29_998}
    for each in model.subgraphs[0].tensors:
        if each.shapeSignature is not None and len(each.shape) == 4:
            side = sides[int(each.shape[1])]
            each.shape = [1, side, side, each.shape[3]]
            each.shapeSignature = [-1, side, side, each.shape[3]]
    assert "of memory up to its node" in refused(pack(model))


def written_behind(name: str, beyond: int = 0) -> bytes:
    """The sound model with a tensor's values behind the flatbuffer."""
    model = unpack(sound())
    buffer = model.buffers[tensor(model, name).buffer]
    values = bytes(buffer.data)
    buffer.data, buffer.size, buffer.offset = None, len(values) + beyond, 1 << 30
    length = -(-len(packed_plainly(model)) // ALIGNMENT) * ALIGNMENT
    buffer.offset = length
    return packed_plainly(model).ljust(length, b"\0") + values


def packed_plainly(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_values_behind_the_flatbuffer_are_those_values() -> None:
    content = written_behind("kernel")
    given = checked_litert(sound(), FILE)
    found = checked_litert(content, FILE)
    (kernel,) = [each for each in given.tensors if each.name == "kernel"]
    (behind,) = [each for each in found.tensors if each.name == "kernel"]
    np.testing.assert_array_equal(behind.values, kernel.values)
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    answers = [LiteRtInterpreter(each, 1).run([pixels])[0] for each in (sound(), content)]
    repacked = pack(unpack(content))
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(LiteRtInterpreter(repacked, 1).run([pixels])[0], answers[0])


def test_values_beyond_the_file_are_refused() -> None:
    assert "bytes of values from" in refused(written_behind("kernel", beyond=1))


def test_a_dense_layer_that_keeps_its_dimensions_is_taken() -> None:
    model = unpack(sound())
    operator(model, "FULLY_CONNECTED").builtinOptions.keepNumDims = True
    checked_litert(pack(model), FILE)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0" * 4 + b"TFL3", bytes(100)])
def test_what_is_no_flatbuffer_is_refused(content: bytes) -> None:
    refused(content)


def test_a_file_that_is_cut_is_refused() -> None:
    for length in range(0, len(sound()), 97):
        refused(sound()[:length])


def test_tables_that_point_at_themselves_take_no_time() -> None:
    root = struct.unpack_from("<I", sound())[0]
    content = bytearray(sound())
    for place in range(root, root + 40, 4):
        struct.pack_into("<I", content, place, 0)
    refused(bytes(content))


@settings(deadline=None, max_examples=300)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4
    )
)
def test_changed_bytes_are_refused_or_run(changes: list[tuple[int, int]]) -> None:
    content = bytearray(sound())
    for place, value in changes:
        content[place % len(content)] = value
    try:
        checked_litert(bytes(content), FILE)
        interpreter = LiteRtInterpreter(bytes(content), 1)
        interpreter.run([np.zeros((2, SIDE, SIDE, 3), np.uint8)])
    except (BundleError, RuntimeError, ValueError) as error:  # the last two are LiteRT's own
        told = str(error)
    else:
        return
    assert told
