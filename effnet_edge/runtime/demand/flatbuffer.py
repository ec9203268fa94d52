"""A flatbuffer read as its bytes, with every place checked and nothing read that has no name here.

Format: https://flatbuffers.dev/internals/. A table tells where its fields are by a list of offsets
before or behind it, and may be pointed to more than once; so all reading has one budget.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from effnet_edge.runtime.demand.steps import ForeignError

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_BYTES = 2**31 - 1
"""Offsets of tables have 31 bits."""
_MOST_ITEMS = 2_000_000
_MOST_DEPTH = 16


class FlatbufferError(ForeignError):
    """The bytes are no flatbuffer of the schema; the text says why."""


@dataclass(frozen=True)
class Field:
    """What a table has in one of its slots.

    Attributes:
        name: what it is called in what is read.
        kind: a number, numbers, text, bytes, another table, a list of tables, a table of the kind
            that an earlier field tells ("union"), or a number that must be 0 ("zero").
        of: the `struct` code of numbers; the schema's name of tables; the field that tells.
    """

    name: str
    kind: Literal["number", "numbers", "text", "bytes", "table", "tables", "union", "zero"]
    of: str = ""


class Flatbuffer:
    """Reads tables as dictionaries; what a table leaves out is not in its dictionary.

    Args:
        schema: the fields of each kind of table, by their slot.
        unions: the kinds of tables by the numbers of a union.
    """

    def __init__(
        self,
        content: bytes,
        schema: Mapping[str, Mapping[int, Field]],
        unions: Mapping[int, str],
    ) -> None:
        self._content = memoryview(content)
        self._schema = schema
        self._unions = unions
        self._left = _MOST_ITEMS
        if len(content) > MOST_BYTES:
            raise FlatbufferError(f"it has {len(content)} bytes")

    def root(self, kind: str, identifier: bytes) -> dict[str, Any]:
        """The table that the whole content is.

        Raises:
            FlatbufferError: it is not as the schema says.
        """
        if bytes(self._content[4:8]) != identifier:
            raise FlatbufferError(f"it has no {identifier.decode()} at its beginning")
        return self._table(kind, self._number("I", 0), 0)

    def _table(self, kind: str, place: int, depth: int) -> dict[str, Any]:
        if depth > _MOST_DEPTH:
            raise FlatbufferError("its tables are nested too deeply")
        offsets = place - self._number("i", place)
        size, own_size = self._number("H", offsets), self._number("H", offsets + 2)
        fields = self._schema[kind]
        found: dict[str, Any] = {}
        self._spend(size // 2)
        for slot in range((size - 4) // 2):
            offset = self._number("H", offsets + 4 + 2 * slot)
            if not offset:
                continue
            if slot not in fields or not 4 <= offset < own_size:
                raise FlatbufferError(f"a {kind} of it has something in field {slot}")
            field = fields[slot]
            if field.kind == "union":
                field = self._chosen(field, found.get(field.of, 0))
            found[field.name] = self._value(field, place + offset, depth)
        return found

    def _chosen(self, union: Field, number: int) -> Field:
        if number not in self._unions:
            raise FlatbufferError(f"its {union.name} are of the kind {number}")
        return Field(union.name, "table", self._unions[number])

    def _value(self, field: Field, place: int, depth: int) -> Any:
        if field.kind == "number":
            return self._number(field.of, place)
        if field.kind == "zero":
            if self._number(field.of, place):
                raise FlatbufferError(f"its {field.name} is not 0")
            return 0
        there = place + self._number("I", place)
        if field.kind == "table":
            return self._table(field.of, there, depth + 1)
        length = self._number("I", there)
        start = there + 4
        if field.kind in ("text", "bytes"):
            content = self._part(start, length)
            return content if field.kind == "bytes" else bytes(content).decode(errors="replace")
        self._spend(length)
        if field.kind == "numbers":
            item = struct.calcsize(f"<{field.of}")
            part = self._part(start, length * item)
            return tuple(np.frombuffer(part, np.dtype(f"<{field.of}")).tolist())
        self._part(start, 4 * length)
        places = range(start, start + 4 * length, 4)
        return [self._table(field.of, each + self._number("I", each), depth + 1) for each in places]

    def _number(self, code: str, place: int) -> Any:
        """An integer or a float, least byte first."""
        item = struct.calcsize(f"<{code}")
        return struct.unpack(f"<{code}", self._part(place, item))[0]

    def _part(self, place: int, length: int) -> memoryview:
        if not 0 <= place <= len(self._content) - length:
            raise FlatbufferError("it points to a place that it has not")
        return self._content[place : place + length]

    def _spend(self, items: int) -> None:
        self._left -= items + 1
        if self._left < 0:
            raise FlatbufferError(f"it has more than {_MOST_ITEMS} entries")
