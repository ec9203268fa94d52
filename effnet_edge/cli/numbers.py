"""Numbers of the command line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from typing import Any

MOST_COUNTED = 2**31 - 1
"""What every library takes for a number of pictures, calls, classes or cores."""


class Count(click.IntRange):
    """A whole number in a range, none that a library has no integer for."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it; whatever is no such number ends the command as bad use."""
        number: int = super().convert(value, param, ctx)
        if number > MOST_COUNTED:
            self.fail(f"{value} is more than {MOST_COUNTED}", param, ctx)
        return number


class Number(click.FloatRange):
    """A finite number in a range: NaN compares with nothing, and infinity limits nothing."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it; whatever is no number in the range ends the command as bad use."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number
