"""An engine's memory in pages of 2 MiB instead of 4 KiB, on Linux 6.1 and later.

A network reads its weights and writes its maps in every call, more than the processor keeps
addresses of pages of 4 KiB for. Linux gives larger pages only to a program that asks for them, and
neither OpenVINO nor ONNX Runtime does.
"""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

_SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
_MAPPINGS = Path("/proc/self/maps")

_COLLAPSE = 25  # MADV_COLLAPSE in Linux' asm-generic/mman-common.h; Python's mmap has it from 3.13

# Of a block's small pages. A huge page is all in memory: it must not take much more of it.
_FILLED = 0.9

# Of a block that was counted before: what is less is not the engine's.
_GROWN = 0.25

# Blocks in a row that Linux had no page for: it searches long for each.
_MOST_REFUSED = 8


class EngineMemory:
    """What a process has filled since this was made: an engine, made right after it, and its maps.

    Where Linux cannot or, by its settings, shall not use huge pages, it does nothing.
    """

    def __init__(self) -> None:
        self._block = _huge_page_size()
        self._before = dict(self._filled())

    def use_huge_pages(self) -> int:
        """Move what is in small pages to huge ones, and say how many there are.

        Blocks that are less than nine tenths filled stay as they are. It may be repeated.
        """
        huge = refused = 0
        for address, filled in self._filled():
            grown = filled - self._before.get(address, 0.0)
            if filled < _FILLED or grown < _GROWN:
                continue
            if _libc().madvise(address, self._block, _COLLAPSE) == 0:
                huge, refused = huge + 1, 0
            else:
                refused += 1
            if refused == _MOST_REFUSED:
                break
        return huge

    def _filled(self) -> Iterator[tuple[int, float]]:
        """The addresses of blocks of a huge page's size, and the shares in memory of each, 0..1."""
        if not self._block:
            return
        for start, end in _own_mappings():
            first = -(-start // self._block) * self._block
            blocks = (end - first) // self._block
            if blocks <= 0:
                continue
            pages = np.empty((blocks, self._block // mmap.PAGESIZE), np.uint8)
            if _libc().mincore(first, blocks * self._block, pages.ctypes.data):
                continue  # unmapped meanwhile
            for index, share in enumerate((pages & 1).mean(axis=1)):
                yield first + index * self._block, float(share)


def _huge_page_size() -> int:
    """In bytes; 0 where there are none, or the machine's settings are against them."""
    try:
        if "[never]" in (_SETTINGS / "enabled").read_text():
            return 0
        return int((_SETTINGS / "hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return 0


def _own_mappings() -> Iterator[tuple[int, int]]:
    """Where the memory begins and ends that belongs to no file, and that the process writes to."""
    try:
        lines = _MAPPINGS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        where, may, _offset, _device, _inode, *name = line.split(maxsplit=5)
        if may == "rw-p" and (not name or name[0] == "[heap]" or name[0].startswith("[anon")):
            start, _, end = where.partition("-")
            yield int(start, 16), int(end, 16)


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    return libc
