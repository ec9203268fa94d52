"""Numbers that are not finite, and numbers that are not there, in JSON and as people read them.

NaN, +∞, −∞ and "not measured" are four different things. JSON (RFC 8259) has no name for the first
three: they are the strings "NaN", "Infinity" and "-Infinity", which `float` in Python and `Number`
in JavaScript read as they are. null is what was not measured.
"""

from __future__ import annotations

import json
import math
from typing import Any, TypeAlias

from effnet_edge.text import escape_json

JsonNumber: TypeAlias = float | str | None
"""A number in one of this project's JSON documents; see the module."""

NOT_MEASURED = "not measured"
_MOST_WHOLE = 1e6
_CODES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(value: Any) -> Any:
    """Turn a tree of dicts, lists and tuples into one of strict JSON values."""
    if isinstance(value, dict):
        return {key: encode(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(each) for each in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def decode(value: JsonNumber) -> float | None:
    """Read what `encode` made of a number or None; raises ValueError for another string."""
    if not isinstance(value, str):
        return value
    if value not in _CODES:
        raise ValueError(f"{value!r} is no number; of strings only {', '.join(_CODES)} are")
    return _CODES[value]


def dumps(document: object, *, indent: int | None = 2, sort_keys: bool = False) -> str:
    """Write a document as the text of strict JSON, every number by the rule of the module.

    Control characters and surrogates in its strings are escaped: it may be shown in a terminal.
    """
    return escape_json(
        json.dumps(
            encode(document),
            indent=indent,
            sort_keys=sort_keys,
            allow_nan=False,
            ensure_ascii=False,
        )
    )


def tell(value: JsonNumber, style: str = ".3g", unit: str = "") -> str:
    """Show a number, encoded or not, to a person, with a minus sign where it is negative.

    What would be 1.7e+02 is 170, up to a million.

    Args:
        style: format specification of a finite number.
        unit: what follows a number, e.g. " dB".
    """
    number = decode(value)
    if number is None:
        return NOT_MEASURED
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return f"{'∞' if number > 0 else '−∞'}{unit}"
    told = f"{number:{style}}"
    if "e+" in told and abs(number) < _MOST_WHOLE:
        told = f"{number:.0f}"
    return (f"−{told[1:]}" if told.startswith("-") else told) + unit
