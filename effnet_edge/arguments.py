"""Arguments of the Python API, checked where they come in: one line for one that is wrong."""

from __future__ import annotations

import math
import operator
import os
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_LENGTH = 60


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise UsageError for anything but one of the words."""
    words = list(choices)
    if not isinstance(value, str) or value not in words:
        raise _wrong(name, value, f"choose from {', '.join(words)}")


def check_text(name: str, value: Any) -> None:
    """Raise UsageError for anything but text."""
    if not isinstance(value, str):
        raise _wrong(name, value, "needs text")


def path_text(name: str, value: Any) -> str:
    """What a path is in text; raises UsageError for anything else."""
    try:
        text: object = os.fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str) or "\0" in text:
        raise _wrong(name, value, "needs a path")
    return text


def whole_number(name: str, value: Any, at_least: int, at_most: int | None = None) -> int:
    """The number as an `int`, also NumPy's; raises UsageError for anything else."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise _wrong(name, value, f"needs a whole number of {at_least} or more") from None
    if number < at_least:
        raise _wrong(name, value, f"needs {at_least} or more")
    if at_most is not None and number > at_most:
        raise _wrong(name, value, f"needs {at_most} or fewer")
    return number


def number_between(name: str, value: Any, low: float, high: float = math.inf) -> float:
    """The number as a `float`, where it is above `low` and below `high`; else a UsageError."""
    is_number = hasattr(value, "__float__") and not isinstance(value, bool)
    try:
        number = float(value) if is_number else math.nan
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not low < number < high:
        below = "" if math.isinf(high) else f" and below {high:g}"
        raise _wrong(name, value, f"needs a number above {low:g}{below}")
    return number


def _wrong(name: str, value: Any, needed: str) -> UsageError:
    shown = repr(value)
    cut = shown if len(shown) <= _LENGTH else f"{shown[:_LENGTH]}…"
    return UsageError(f"{name} {cut}: {needed}")
