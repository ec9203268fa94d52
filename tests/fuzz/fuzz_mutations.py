"""Changes to files, by seed: the same number gives the same bytes on every machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1)
_TEXTS = (
    *(b"0", b"-1", b"1e999", b"NaN", b"99999999999999999999", b"0.0000001", b"null", b"true"),
    *(b'""', b"[]", b"{}", b"[[[[", b"\\ud800", b"\x1b[2J", b"../x", b"/dev/zero", b"\xff\xfe"),
)
_DECIMAL = re.compile(rb"[0-9]+")


def mutated(chance: random.Random, seeds: list[bytes]) -> tuple[bytes, bytes]:
    """A file with one to six changes, and the one that it was made from."""
    seed = chance.choice(seeds)
    data = bytearray(seed)
    for _ in range(1 + min(int(chance.expovariate(0.8)), 5)):
        chance.choice(_CHANGES)(chance, data, seeds)
    return bytes(data), seed


def _place(chance: random.Random, data: bytearray) -> int:
    """Anywhere, but rather near the beginning or the end, where formats have their tables."""
    size = len(data)
    if not size:
        return 0
    kind = chance.random()
    near = min(int(chance.expovariate(1 / 64)), size - 1)
    if kind < 0.3:
        return near
    return size - 1 - near if kind < 0.5 else chance.randrange(size)


def _flip(chance: random.Random, data: bytearray, _: list[bytes]) -> None:
    if data:
        data[_place(chance, data)] ^= 1 << chance.randrange(8)


def _set(chance: random.Random, data: bytearray, _: list[bytes]) -> None:
    if data:
        data[_place(chance, data)] = chance.randrange(256)


def _number(chance: random.Random, data: bytearray, _: list[bytes]) -> None:
    width = chance.choice((2, 4, 8))
    number = (chance.choice(_NUMBERS) + chance.randrange(-2, 3)) % (1 << 8 * width)
    place = _place(chance, data)
    data[place : place + width] = number.to_bytes(width, chance.choice(("little", "big")))


def _cut(chance: random.Random, data: bytearray, _: list[bytes]) -> None:
    place = _place(chance, data)
    del data[place : place + 1 + int(chance.expovariate(1 / 16))]


def _truncate(chance: random.Random, data: bytearray, _: list[bytes]) -> None:
    if chance.random() < 0.3:
        del data[_place(chance, data) :]


def _repeat(chance: random.Random, data: bytearray, _: list[bytes]) -> None:
    place, size = _place(chance, data), 1 + int(chance.expovariate(1 / 32))
    times = chance.choice((1, 1, 2, 300))
    data[place:place] = data[place : place + size] * times


def _move(chance: random.Random, data: bytearray, _: list[bytes]) -> None:
    here, there = _place(chance, data), _place(chance, data)
    size = 1 + int(chance.expovariate(1 / 16))
    data[here : here + size] = data[there : there + size]


def _mix(chance: random.Random, data: bytearray, seeds: list[bytes]) -> None:
    other = chance.choice(seeds)
    start = chance.randrange(len(other)) if other else 0
    place, size = _place(chance, data), 1 + int(chance.expovariate(1 / 64))
    data[place : place + size] = other[start : start + size]


def _text(chance: random.Random, data: bytearray, _: list[bytes]) -> None:
    place = _place(chance, data)
    data[place : place + chance.choice((0, 1, 4))] = chance.choice(_TEXTS)


def _decimal(chance: random.Random, data: bytearray, _: list[bytes]) -> None:
    """A number that is written out becomes another one."""
    found = list(_DECIMAL.finditer(data)) if len(data) < 1 << 16 else []
    if found:
        start, end = chance.choice(found).span()
        data[start:end] = chance.choice((*_TEXTS[:6], b"%d" % chance.choice(_NUMBERS)))


_CHANGES = (_flip, _set, _number, _cut, _truncate, _repeat, _move, _mix, _text, _decimal)
