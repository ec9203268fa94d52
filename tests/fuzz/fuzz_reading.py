"""What a target is, and how it is read; nothing heavy is imported."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Target:
    """A reader of one format.

    Attributes:
        seeds: makes the sound files.
        read: reads one; `folder` is for those that are read by their path.
        told_by_checksum: every change that is accepted must leave the answer as it was.
        every: it is tried in one of so many rounds; more than 1 where it takes long.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], Any]
    told_by_checksum: bool = False
    every: int = 1


def answer(value: Any) -> str:
    """What was read, as text that is equal where the answers are."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {answer(value[k])}" for k in sorted(value, key=str)) + "}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{value.tobytes().hex()}"
    if hasattr(value, "numpy"):
        return answer(value.float().numpy()) + str(value.dtype)
    return repr(value)


@cache
def _seeds(make: Callable[[], list[bytes]]) -> list[bytes]:
    return make()


def seeds(target: Target) -> list[bytes]:
    """Its sound files, made once."""
    return _seeds(target.seeds)


def read(target: Target, data: bytes, folder: Path) -> str:
    """The answer for a file; warnings are for people."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return answer(target.read(data, folder))
