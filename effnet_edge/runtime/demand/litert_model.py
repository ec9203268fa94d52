"""A LiteRT model read as its bytes, before LiteRT reads it.

Schema: https://github.com/google-ai-edge/LiteRT/blob/main/tflite/converter/schema/schema.fbs. What
has no field here (sparse and variable tensors, graphs within the graph, constants of another file,
operators of other people) is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.graphs.litert_file import ALIGNMENT
from effnet_edge.runtime.demand.flatbuffer import Field, Flatbuffer
from effnet_edge.runtime.demand.steps import MOST_DIMENSIONS, MOST_STEPS, ForeignError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_FILE_IDENTIFIER = b"TFL3"
_MOST_BYTES_OF_NUMBERS = 256  # of constants that tell axes, amounts and shapes
_LEAST_SCALE = float(np.finfo(np.float32).tiny)  # the inverse of a smaller one is no float32
DTYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 9: "int8"}
"""NumPy's names of the schema's TensorType, for what a model may have."""
ITEM_BYTES = {name: np.dtype(name).itemsize for name in DTYPES.values()}
OPERATORS = {
    0: "ADD",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    6: "DEQUANTIZE",
    9: "FULLY_CONNECTED",
    14: "LOGISTIC",
    18: "MUL",
    19: "RELU",
    21: "RELU6",
    22: "RESHAPE",
    25: "SOFTMAX",
    34: "PAD",
    39: "TRANSPOSE",
    40: "MEAN",
    41: "SUB",
    53: "CAST",
    82: "REDUCE_MAX",
    114: "QUANTIZE",
    117: "HARD_SWISH",
}
"""The schema's BuiltinOperator, for what a model may have."""
# The schema's union BuiltinOptions.
_OPTIONS = {
    1: "Conv2DOptions",
    2: "DepthwiseConv2DOptions",
    8: "FullyConnectedOptions",
    9: "SoftmaxOptions",
    11: "AddOptions",
    17: "ReshapeOptions",
    21: "MulOptions",
    22: "PadOptions",
    26: "TransposeOptions",
    27: "ReducerOptions",
    28: "SubOptions",
    37: "CastOptions",
    38: "DequantizeOptions",
    89: "QuantizeOptions",
    91: "HardSwishOptions",
}

_TABLES: dict[str, dict[int, Field]] = {
    "Model": {
        0: Field("version", "number", "I"),
        1: Field("operator_codes", "tables", "OperatorCode"),
        2: Field("subgraphs", "tables", "SubGraph"),
        3: Field("description", "text"),
        4: Field("buffers", "tables", "Buffer"),
        5: Field("metadata_buffer", "numbers", "i"),
        6: Field("metadata", "tables", "Metadata"),
        7: Field("signatures", "tables", "SignatureDef"),
    },
    "OperatorCode": {
        0: Field("old_code", "number", "b"),
        2: Field("version", "number", "i"),
        3: Field("code", "number", "i"),
    },
    "SubGraph": {
        0: Field("tensors", "tables", "Tensor"),
        1: Field("inputs", "numbers", "i"),
        2: Field("outputs", "numbers", "i"),
        3: Field("operators", "tables", "Operator"),
        4: Field("name", "text"),
    },
    "Tensor": {
        0: Field("shape", "numbers", "i"),
        1: Field("type", "number", "b"),
        2: Field("buffer", "number", "I"),
        3: Field("name", "text"),
        4: Field("quantization", "table", "QuantizationParameters"),
        5: Field("is_variable", "zero", "b"),
        7: Field("shape_signature", "numbers", "i"),
        8: Field("has_rank", "number", "b"),
    },
    "QuantizationParameters": {
        0: Field("min", "numbers", "f"),
        1: Field("max", "numbers", "f"),
        2: Field("scale", "numbers", "f"),
        3: Field("zero_point", "numbers", "q"),
        4: Field("details_type", "zero", "b"),
        6: Field("axis", "number", "i"),
    },
    "Operator": {
        0: Field("code", "number", "I"),
        1: Field("inputs", "numbers", "i"),
        2: Field("outputs", "numbers", "i"),
        3: Field("options_type", "number", "B"),
        4: Field("options", "union", "options_type"),
        6: Field("custom_options_format", "zero", "b"),
    },
    "Buffer": {
        0: Field("data", "bytes"),
        1: Field("offset", "number", "Q"),
        2: Field("size", "number", "Q"),
    },
    "Metadata": {0: Field("name", "text"), 1: Field("buffer", "number", "I")},
    "SignatureDef": {
        0: Field("inputs", "tables", "TensorMap"),
        1: Field("outputs", "tables", "TensorMap"),
        2: Field("key", "text"),
        4: Field("subgraph", "number", "I"),
    },
    "TensorMap": {0: Field("name", "text"), 1: Field("tensor", "number", "I")},
    "Conv2DOptions": {
        0: Field("padding", "number", "b"),
        1: Field("stride_columns", "number", "i"),
        2: Field("stride_rows", "number", "i"),
        3: Field("activation", "number", "b"),
        4: Field("dilation_columns", "number", "i"),
        5: Field("dilation_rows", "number", "i"),
        6: Field("bias_type", "zero", "b"),
    },
    "DepthwiseConv2DOptions": {
        0: Field("padding", "number", "b"),
        1: Field("stride_columns", "number", "i"),
        2: Field("stride_rows", "number", "i"),
        3: Field("multiplier", "number", "i"),
        4: Field("activation", "number", "b"),
        5: Field("dilation_columns", "number", "i"),
        6: Field("dilation_rows", "number", "i"),
    },
    "FullyConnectedOptions": {
        0: Field("activation", "number", "b"),
        1: Field("weights_format", "zero", "b"),
        2: Field("keep_dimensions", "number", "b"),
        3: Field("asymmetric_inputs", "number", "b"),
        4: Field("bias_type", "zero", "b"),
    },
    "SoftmaxOptions": {0: Field("beta", "number", "f")},
    "AddOptions": {0: Field("activation", "number", "b"), 1: Field("power_of_two", "number", "b")},
    "SubOptions": {0: Field("activation", "number", "b"), 1: Field("power_of_two", "number", "b")},
    "MulOptions": {0: Field("activation", "number", "b")},
    "ReshapeOptions": {0: Field("shape", "numbers", "i")},
    "ReducerOptions": {0: Field("keep_dimensions", "number", "b")},
    "CastOptions": {0: Field("from", "number", "b"), 1: Field("to", "number", "b")},
    "PadOptions": {},
    "TransposeOptions": {},
    "DequantizeOptions": {},
    "QuantizeOptions": {},
    "HardSwishOptions": {},
}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph.

    Attributes:
        shape: what the file tells; a dynamic batch counts as told, mostly 1.
        dynamic: whether the batch, its first dimension, is open.
        dtype: NumPy's name of the type.
        scales, zero_points, axis: its grid where it has one; several are one a slice of the axis.
        data: its values, where it is a constant.
    """

    name: str
    shape: tuple[int, ...]
    dynamic: bool
    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int
    data: memoryview | None

    @property
    def bytes(self) -> int:
        """That it takes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def values(self) -> NDArray[Any]:
        """Of a constant, as the file has them."""
        assert self.data is not None
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)

    def real(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """What values of this tensor stand for: themselves, or a place on its grid."""
        if not self.scales:
            return stored.astype(np.float32)
        shape = [1] * stored.ndim
        if len(self.scales) > 1:
            shape[self.axis] = -1
        scales = np.asarray(self.scales, np.float32).reshape(shape)
        zeros = np.asarray(self.zero_points, np.float32).reshape(shape)
        real: NDArray[np.float32] = (stored.astype(np.float32) - zeros) * scales
        return real

    def numbers(self) -> tuple[int, ...]:
        """The values of a small constant of int32; ForeignError for anything else."""
        if self.data is None or self.dtype != "int32" or len(self.data) > _MOST_BYTES_OF_NUMBERS:
            raise ForeignError(f"{self.name!r} is no constant of a few integers")
        return tuple(np.frombuffer(self.data, "<i4").tolist())


@dataclass(frozen=True)
class Operator:
    """An operation.

    Attributes:
        kind: by `OPERATORS`.
        inputs: numbers of tensors; −1 for one that is left out.
        output: number of the tensor that it gives.
        options: what it was told, by name; what is left out has the schema's default.
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    options: Mapping[str, Any]


@dataclass(frozen=True)
class LiteRtModel:
    """A model; operators are in their order, and inputs and outputs are numbers of tensors."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_litert(content: bytes) -> LiteRtModel:
    """The graph of a file.

    Raises:
        ForeignError: it is no flatbuffer of the schema, or has what an exported one never has.
    """
    model = Flatbuffer(content, _TABLES, _OPTIONS).root("Model", _FILE_IDENTIFIER)
    graphs = model.get("subgraphs", [])
    if len(graphs) != 1:
        raise ForeignError(f"it has {len(graphs)} graphs")
    graph, buffers = graphs[0], [_values(each, content) for each in model.get("buffers", [])]
    kinds = [_kind(each) for each in model.get("operator_codes", [])]
    operators = graph.get("operators", [])
    if len(operators) > MOST_STEPS:
        raise ForeignError(f"it has {len(operators)} operators")
    tensors = tuple(_tensor(each, buffers) for each in graph.get("tensors", []))
    _check_numbers(model, tensors, len(buffers))
    return LiteRtModel(
        tensors,
        tuple(_operator(each, kinds, len(tensors)) for each in operators),
        _numbered(graph.get("inputs", ()), len(tensors)),
        _numbered(graph.get("outputs", ()), len(tensors)),
    )


def _values(buffer: dict[str, Any], content: bytes) -> memoryview | None:
    """What a buffer holds, or what it tells the place of, behind the flatbuffer."""
    offset, size = buffer.get("offset", 0), buffer.get("size", 0)
    data: memoryview | None = buffer.get("data")
    if not offset and not size:
        return data
    if data is not None or offset % ALIGNMENT or offset + size > len(content):
        raise ForeignError(f"it tells of {size} bytes of values from {offset} on")
    return memoryview(content)[offset : offset + size]


def _check_numbers(model: dict[str, Any], tensors: tuple[Tensor, ...], buffers: int) -> None:
    """Of what no operator reads, and LiteRT may."""
    held = [*model.get("metadata_buffer", ())]
    held += [each.get("buffer", 0) for each in model.get("metadata", [])]
    _numbered(tuple(held), buffers)
    for signature in model.get("signatures", []):
        places = [*signature.get("inputs", []), *signature.get("outputs", [])]
        _numbered(tuple(each.get("tensor", 0) for each in places), len(tensors))
        if signature.get("subgraph", 0):
            raise ForeignError("it has a signature of another graph")


def _kind(code: dict[str, Any]) -> str:
    number = max(code.get("code", 0), code.get("old_code", 0))
    if number not in OPERATORS:
        raise ForeignError(f"it has operators of the kind {number}")
    return OPERATORS[number]


def _tensor(told: dict[str, Any], buffers: list[memoryview | None]) -> Tensor:
    name, kind, buffer = told.get("name", ""), told.get("type", 0), told.get("buffer", 0)
    shape, signature = told.get("shape", ()), told.get("shape_signature", ())
    if kind not in DTYPES:
        raise ForeignError(f"its tensor {name!r} is of the type {kind}")
    if len(shape) > MOST_DIMENSIONS or any(side < 0 for side in shape):
        raise ForeignError(f"its tensor {name!r} has an impossible shape")
    if signature and signature[1:] != shape[1:]:
        raise ForeignError(f"more than the batch of its tensor {name!r} is open")
    dynamic = bool(signature) and signature[0] == -1
    if not dynamic and signature[:1] != shape[:1] and signature:
        raise ForeignError(f"its tensor {name!r} has two shapes")
    data = buffers[_numbered((buffer,), len(buffers))[0]] if buffer else None
    grid = told.get("quantization", {})
    tensor = Tensor(
        name,
        shape,
        dynamic,
        DTYPES[kind],
        grid.get("scale", ()),
        grid.get("zero_point", ()),
        grid.get("axis", 0),
        data if data is not None and len(data) else None,
    )
    _check_values(tensor)
    return tensor


def _check_values(tensor: Tensor) -> None:
    if tensor.data is not None and (tensor.dynamic or len(tensor.data) != tensor.bytes):
        raise ForeignError(f"its tensor {tensor.name!r} has {len(tensor.data)} bytes of values")
    scales = len(tensor.scales)
    whole = scales <= 1
    if len(tensor.zero_points) != scales or not (
        whole or (0 <= tensor.axis < len(tensor.shape) and tensor.shape[tensor.axis] == scales)
    ):
        raise ForeignError(f"its tensor {tensor.name!r} has {scales} scales")
    if not all(_LEAST_SCALE <= scale < math.inf for scale in tensor.scales):
        raise ForeignError(f"its tensor {tensor.name!r} has a scale that is none")


def _operator(told: dict[str, Any], kinds: list[str], tensors: int) -> Operator:
    code, outputs = told.get("code", 0), told.get("outputs", ())
    kind = kinds[_numbered((code,), len(kinds))[0]]
    if len(outputs) != 1:
        raise ForeignError(f"its {kind} gives {len(outputs)} tensors")
    inputs = told.get("inputs", ())
    _numbered(tuple(each for each in inputs if each != -1), tensors)
    return Operator(kind, inputs, _numbered(outputs, tensors)[0], told.get("options", {}))


def _numbered(numbers: tuple[int, ...], length: int) -> tuple[int, ...]:
    """The numbers, which are of things of a list of that length."""
    for each in numbers:
        if not 0 <= each < length:
            raise ForeignError(f"it tells of something of the number {each}, and has {length}")
    return numbers
