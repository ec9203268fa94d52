"""What making a model costs."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Cost:
    """Wall-clock seconds, and CPU seconds of this process and its finished children."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


@contextmanager
def measured() -> Iterator[Cost]:
    """Gives a cost that is filled in when the block ends."""
    cost = Cost()
    wall, cpu = time.perf_counter(), _cpu_seconds()
    yield cost
    cost.seconds, cost.cpu_seconds = time.perf_counter() - wall, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
