"""Gates in a TOML file, so that CI and people hold a model to the same limits.

The keys are the options of the command line, in its units: percent, points, decibels, nats.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError
from effnet_edge.parity.measures.gates import Gate
from effnet_edge.parity.measures.table import LIMITS, MEASURES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    import os

_TABLE = "gate"
_NAMES = {limit.option: limit.name for limit in LIMITS.values()}
_FACTORS = {measure.limit.option: measure.factor for measure in MEASURES if measure.limit}


def gate_of(limits: dict[str, float]) -> Gate:
    """From limits by their names on the command line, in its units.

    Raises:
        UsageError: a limit out of its range.
    """
    return Gate(**{_NAMES[key]: value / _FACTORS[key] for key, value in limits.items()})


def read_limits(path: str | os.PathLike[str]) -> dict[str, float]:
    """The table [gate] of a TOML file, its keys those of the command line.

    Raises:
        UsageError: there is no such file, it is no TOML, or has other keys or values.
    """
    file = Path(path)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{str(file)!r} is not TOML: {error}") from error
    limits = document.get(_TABLE)
    if not isinstance(limits, dict):
        raise UsageError(f"{str(file)!r} has no table [{_TABLE}]: put the limits there")
    for key, value in limits.items():
        if key not in _NAMES:
            choices = ", ".join(sorted(_NAMES))
            raise UsageError(f"{str(file)!r}: there is no limit {key!r}: choose one of {choices}")
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise UsageError(f"{str(file)!r}: {key} is {value!r}; it must be a number")
        if abs(value) > sys.float_info.max:
            raise UsageError(f"{str(file)!r}: {key} is too large a number")
    return {key: float(value) for key, value in limits.items()}
