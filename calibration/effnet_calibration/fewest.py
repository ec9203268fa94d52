"""The smallest number that is enough, in few attempts."""

from __future__ import annotations

from itertools import accumulate, chain, repeat
from operator import mul
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Found = TypeVar("Found")


def fewest(
    most: int,
    attempt: Callable[[int], Found],
    is_enough: Callable[[Found], bool],
    guess: int = 1,
) -> Found:
    """What `attempt` gives for the smallest number from 1 to `most` that is enough.

    Goes from the guess with steps of 1, 1, 2, 4, … to where it changes, and bisects there. It
    assumes that more is never less; where that is not so what is found is still enough, but fewer
    might be. If even `most` is not enough, it is that attempt.
    """
    low, high = 0, most + 1
    number, steps = max(1, min(guess, most)), chain([1], accumulate(repeat(2), mul, initial=1))
    found = attempt(number)
    last = found
    while True:
        if is_enough(last):
            found, high = last, number
        else:
            low = number
        if high - low == 1:
            return found if high <= most else last
        if high > most:
            number = min(low + next(steps), most)
        elif low == 0:
            number = max(high - next(steps), 1)
        else:
            number = (low + high) // 2
        last = attempt(number)


def enough_for(costs: Sequence[float], share: float) -> int:
    """How many of the costs, from the first on, must go so that this share of all is left."""
    left = sum(costs)
    allowed = left * share
    for number, cost in enumerate(costs):
        if left <= allowed:
            return number
        left -= cost
    return len(costs)
