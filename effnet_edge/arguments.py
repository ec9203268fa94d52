"""Arguments of the Python API, checked where they come in: one line for one that is wrong."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_LENGTH = 60


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise UsageError for anything but one of the words."""
    words = list(choices)
    if not isinstance(value, str) or value not in words:
        raise _wrong(name, value, " or ".join(filter(None, (", ".join(words[:-1]), words[-1]))))


def whole_number(name: str, value: Any, at_least: int) -> int:
    """The number as an `int`, also NumPy's; raises UsageError for anything else."""
    wanted = f"a whole number, {at_least} or more"
    try:
        number = at_least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        raise _wrong(name, value, wanted) from None
    if number < at_least:
        raise _wrong(name, value, wanted)
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
        raise _wrong(name, value, f"a number above {low:g}{below}")
    return number


def _wrong(name: str, value: Any, wanted: str) -> UsageError:
    shown = repr(value)
    cut = shown if len(shown) <= _LENGTH else f"{shown[:_LENGTH]}…"
    return UsageError(f"{name} is {cut}: give {wanted}")
