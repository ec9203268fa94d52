"""Gates in a TOML file, so that CI and people hold a model to the same limits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.errors import UsageError
from effnet_edge.parity.measures.gates import Gate

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    import os

_TABLE = "gate"
# The keys are those of the command line, in its units: percent, points, decibels, nats.
_FIELDS = {
    "max-drop": ("max_drop", 1.0),
    "min-agreement": ("min_agreement", 0.01),
    "min-sqnr": ("min_sqnr_db", 1.0),
    "max-kl": ("max_kl", 1.0),
}


def gate_of(limits: dict[str, float]) -> Gate:
    """From limits by their names on the command line, in its units.

    Raises:
        UsageError: a limit out of its range.
    """
    return Gate(**{_FIELDS[key][0]: value * _FIELDS[key][1] for key, value in limits.items()})


def read_limits(path: str | os.PathLike[str]) -> dict[str, float]:
    """The table [gate] of a TOML file: max-drop, min-agreement, min-sqnr, max-kl.

    Raises:
        UsageError: there is no such file, it is no TOML, or has other keys or values.
    """
    file = Path(path)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{str(file)!r} is not TOML: {error}") from error
    limits = document.get(_TABLE)
    if not isinstance(limits, dict):
        raise UsageError(f"{str(file)!r} has no table [{_TABLE}]: put the limits there")
    for key, value in limits.items():
        if key not in _FIELDS:
            raise UsageError(f"{str(file)!r}: {key!r} is no limit; choose of {', '.join(_FIELDS)}")
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise UsageError(f"{str(file)!r}: {key} is {value!r}; it must be a number")
    return {key: float(value) for key, value in limits.items()}
