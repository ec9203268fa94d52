"""Gates in a TOML file, so that CI and people hold a model to the same limits.

The keys are the options of the command line, in its units: percent, points, decibels, nats.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import UsageError
from effnet_edge.parity.measures.gates import Gate
from effnet_edge.parity.measures.table import LIMITS, MEASURES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

_TABLE = "gate"
_NAMES = {limit.option: limit.name for limit in LIMITS.values()}
_MEASURES = {measure.limit.option: measure for measure in MEASURES if measure.limit}
_PERCENT = 100.0


def gate_of(limits: dict[str, float]) -> Gate:
    """From limits by their names on the command line, in its units.

    Raises:
        UsageError: a limit out of its range, or a share where percent are meant.
    """
    for key, value in limits.items():
        if fault := _fault(key, value):
            raise UsageError(f"--{fault}")
    return Gate(**{_NAMES[key]: _MEASURES[key].stored(value) for key, value in limits.items()})


def read_limits(path: str | os.PathLike[str]) -> dict[str, float]:
    """The table [gate] of a TOML file, its keys those of the command line.

    Raises:
        UsageError: there is no such file, it is no TOML, has other keys or values, or anything
            beside that table.
    """
    document = read_toml(path)
    limits = document.get(_TABLE)
    if not isinstance(limits, dict):
        raise UsageError(f"{str(path)!r} has no table [{_TABLE}]: put the limits there")
    beside = next((key for key in document if key != _TABLE), None)
    if beside is not None:
        raise UsageError(
            f"{str(path)!r}: {beside!r} is no limit where it stands: the table [{_TABLE}] has all "
            "that a file of gates holds"
        )
    return checked_limits(limits, path)


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A TOML file as it is; raises UsageError where there is none, or it is no TOML."""
    file = Path(path)
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{str(file)!r} is not TOML: {error}") from error


def checked_limits(limits: Mapping[str, object], file: str | os.PathLike[str]) -> dict[str, float]:
    """The limits of a table [gate] as numbers in the units of the command line.

    Raises:
        UsageError: another key or value; the text names the file.
    """
    numbers = {}
    for key, value in limits.items():
        if key not in _NAMES:
            choices = ", ".join(sorted(_NAMES))
            raise UsageError(f"{str(file)!r}: there is no limit {key!r}: choose one of {choices}")
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise UsageError(f"{str(file)!r}: {key} is {value!r}; it must be a number")
        if abs(value) > sys.float_info.max:
            raise UsageError(f"{str(file)!r}: {key} is too large a number")
        if fault := _fault(key, float(value)):
            raise UsageError(f"{str(file)!r}: {fault}")
        numbers[key] = float(value)
    return numbers


def _fault(key: str, value: float) -> str | None:
    """What is wrong with a limit in the units of the command line; None if nothing is."""
    measure = _MEASURES[key]
    limit = measure.limit
    if limit is None or not math.isfinite(value):
        return f"{key} is {value}: it must be a number"
    if measure.factor == _PERCENT and 0 < value <= 1:
        return f"{key} {value:g} is {value:g} %: did you mean {_PERCENT * value:g} %?"
    if limit.lowest <= measure.stored(value) <= limit.highest:
        return None
    least, most = (measure.tell_limit(end) for end in (limit.lowest, limit.highest))
    bounds = f"at least {least}" if math.isinf(limit.highest) else f"between {least} and {most}"
    return f"{key} must be {bounds}, not {value:g}{measure.unit}"
