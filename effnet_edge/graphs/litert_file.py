"""LiteRT's file format: a flatbuffer by the schema that comes with `ai-edge-litert`.

https://github.com/google-ai-edge/LiteRT/blob/main/tflite/converter/schema/schema.fbs
"""

from __future__ import annotations

from typing import Any

import numpy as np

from effnet_edge.extras import needed_for

_FILE_IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # of constants, which kernels read in vectors
SCHEMA_VERSION = 3


def import_schema() -> Any:
    """The module of the schema's classes, and of their `…T` forms that can be changed.

    Raises:
        BackendError: `ai-edge-litert` is not installed.
    """
    with needed_for("a LiteRT model", "litert"):
        from ai_edge_litert import schema_py_generated
    return schema_py_generated


def unpack(content: bytes) -> Any:
    """A `ModelT` of a file that has been checked; its constants are views of `content`.

    Those that lie behind the flatbuffer, as ai-edge-quantizer has them, are in its buffers, too.
    """
    model = import_schema().ModelT.InitFromPackedBuf(content)
    for buffer in model.buffers:
        if buffer.size:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def pack(model: Any) -> bytes:
    """The file of a `ModelT`, the same bytes for the same model."""
    import flatbuffers

    buffers = model.buffers
    builder = flatbuffers.Builder(1024)
    try:
        model.buffers = [_AlignedBuffer(each.data) for each in buffers]
        builder.Finish(model.Pack(builder), _FILE_IDENTIFIER)
    finally:
        model.buffers = buffers
    return bytes(builder.Output())


class _AlignedBuffer:
    """A `BufferT` whose constants lie where the schema's `force_align` says.

    The generated classes leave it out.
    """

    def __init__(self, data: Any) -> None:
        self._data = None if data is None else np.ascontiguousarray(data).view(np.uint8).reshape(-1)

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the generated classes call it so
        schema = import_schema()
        place = None
        if self._data is not None and self._data.size:
            builder.StartVector(1, self._data.size, ALIGNMENT)
            builder.head -= self._data.size
            builder.Bytes[builder.head : builder.head + self._data.size] = self._data.tobytes()
            place = builder.EndVector()
        schema.BufferStart(builder)
        if place is not None:
            schema.BufferAddData(builder, place)
        return int(schema.BufferEnd(builder))
