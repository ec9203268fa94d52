"""Pickles read as data: nothing is imported and nothing is called.

A pickle is a program of a small stack machine (`pickletools` documents its operations). Here what
would be a call stays a `Call`, and what would be imported a `Global`.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

OPERATIONS_AT_MOST = 3_000_000
"""A training checkpoint of the largest variant with its optimizer's state has a tenth of it."""

_PLAIN_KEYS = (str, bytes, int, float, type(None))


@dataclass(frozen=True)
class Global:
    """A class or function that the pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, eq=False)
class PersistentId:
    """What stands for a thing that is kept outside of the pickle."""

    value: object


@dataclass(eq=False)
class Call:
    """What the pickle would have made by a call.

    Attributes:
        function: what it would have called; None where that is no `Global`.
        arguments: the positional ones.
        items: put into it afterwards, as into a dictionary.
        state: given to it afterwards, as to `__setstate__`.
    """

    function: Global | None
    arguments: tuple[Any, ...] = ()
    items: dict[Any, Any] = field(default_factory=dict)
    state: object = None


@dataclass(frozen=True)
class Pickle:
    """A pickle's content.

    Attributes:
        value: made of Python's plain types (lists for sets), `Call`, `Global` and `PersistentId`.
        called: everything that it would have called.
        persistent_ids: in the order of the file.
    """

    value: object
    called: frozenset[Global]
    persistent_ids: tuple[PersistentId, ...]


class PickleError(ValueError):
    """The bytes are no pickle, or none that is read here; the text says why."""


def read_pickle(stream: BinaryIO) -> Pickle:
    """The pickle that begins at the stream's position, which is after it then.

    Raises:
        PickleError: as above. What the parser of the operations raises is not caught.
    """
    machine = _Machine()
    for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        if count > OPERATIONS_AT_MOST:
            raise PickleError(f"it has more than {OPERATIONS_AT_MOST} operations")
        machine.perform(operation.name, argument)
    return machine.result()


class _Machine:
    """The stack, what lies below its marks, and the memo."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._called: set[Global] = set()
        self._persistent_ids: list[PersistentId] = []

    def result(self) -> Pickle:
        (value,) = self._stack
        return Pickle(value, frozenset(self._called), tuple(self._persistent_ids))

    def perform(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        elif name not in _IGNORED:
            raise PickleError(f"its operation {name} is not for files")

    def mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _to_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._below.pop()
        return values

    def pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._to_mark()

    def pop_mark(self, _: Any) -> None:
        self._to_mark()

    def duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def marked_tuple(self, _: Any) -> None:
        values = self._to_mark()
        self._stack.append(tuple(values))

    def marked_list(self, _: Any) -> None:
        values = self._to_mark()
        self._stack.append(values)

    def marked_dictionary(self, _: Any) -> None:
        values = self._to_mark()
        made: dict[Any, Any] = {}
        _set_items(made, values)
        self._stack.append(made)

    def tuple_of(self, size: int) -> None:
        values = tuple(self._stack[-size:])
        if len(values) != size:
            raise PickleError("its stack is empty")
        del self._stack[-size:]
        self._stack.append(values)

    def append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def appends(self, _: Any) -> None:
        self._extend(self._to_mark())

    def _extend(self, values: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(values)

    def set_item(self, _: Any) -> None:
        values = [self._stack.pop(), self._stack.pop()]
        _set_items(self._stack[-1], values[::-1])

    def set_items(self, _: Any) -> None:
        values = self._to_mark()
        _set_items(self._stack[-1], values)

    def named(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(Global(module, name))

    def named_on_stack(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(Global(str(module), str(name)))

    def extension(self, number: int) -> None:
        self._stack.append(Global("copyreg", f"extension {number}"))

    def call(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._make(function, arguments)

    def call_with_keywords(self, _: Any) -> None:
        self._stack.pop()
        self.call(None)

    def call_marked(self, _: Any) -> None:
        function, *arguments = self._to_mark()
        self._make(function, tuple(arguments))

    def call_named(self, argument: str) -> None:
        arguments = self._to_mark()
        self.named(argument)
        self._make(self._stack.pop(), tuple(arguments))

    def _make(self, function: object, arguments: object) -> None:
        known = function if isinstance(function, Global) else None
        if known is not None:
            self._called.add(known)
        self._stack.append(Call(known, arguments if isinstance(arguments, tuple) else ()))

    def build(self, _: Any) -> None:
        state = self._stack.pop()
        if isinstance(self._stack[-1], Call):
            self._stack[-1].state = state

    def persistent(self, argument: str) -> None:
        self._keep(PersistentId(argument))

    def persistent_on_stack(self, _: Any) -> None:
        self._keep(PersistentId(self._stack.pop()))

    def _keep(self, identity: PersistentId) -> None:
        self._persistent_ids.append(identity)
        self._stack.append(identity)


def _set_items(target: object, values: list[Any]) -> None:
    """Pairs of the list go into a dictionary, or what stands for one.

    Keys that are no plain values are left out: the hash of a tuple of tuples of the same tuples
    would never end.
    """
    items = target.items if isinstance(target, Call) else target
    if isinstance(items, dict):
        pairs = zip(values[::2], values[1::2], strict=True)
        items.update((key, value) for key, value in pairs if isinstance(key, _PLAIN_KEYS))


_LITERALS = frozenset(
    {
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    }
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": _Machine.memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "TUPLE": _Machine.marked_tuple,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    **dict.fromkeys(("LIST", "FROZENSET"), _Machine.marked_list),
    "DICT": _Machine.marked_dictionary,
    "APPEND": _Machine.append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _Machine.appends),
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.named,
    "STACK_GLOBAL": _Machine.named_on_stack,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Machine.extension),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.call),
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "OBJ": _Machine.call_marked,
    "INST": _Machine.call_named,
    "BUILD": _Machine.build,
    "PERSID": _Machine.persistent,
    "BINPERSID": _Machine.persistent_on_stack,
}
