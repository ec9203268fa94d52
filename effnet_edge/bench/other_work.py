"""How much of the machine other programs take while something is timed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
# proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; guests are within user.
_FIELDS = 8
_IDLE = (3, 4)

BUSY_SHARE = 0.1
"""A machine is busy where other programs take more of its processor time than this."""


@dataclass(frozen=True)
class ProcessorTime:
    """Seconds since the machine's start: of all its processors, busy ones, and this process."""

    whole: float
    busy: float
    own: float

    @classmethod
    def now(cls, stat: Path = _STAT) -> ProcessorTime | None:
        """Read the system's clock ticks; None where there is no such file, as outside Linux."""
        try:
            first = stat.read_text(encoding="ascii").partition("\n")[0].split()
            ticks = [int(each) for each in first[1 : 1 + _FIELDS]]
        except (OSError, ValueError):
            return None
        if first[:1] != ["cpu"] or len(ticks) != _FIELDS:
            return None
        second = os.sysconf("SC_CLK_TCK")
        idle = sum(ticks[at] for at in _IDLE)
        return cls(sum(ticks) / second, (sum(ticks) - idle) / second, time.process_time())

    def others_until(self, later: ProcessorTime) -> float | None:
        """The share of the processors, 0..1, that others had until then; None for no time."""
        whole = later.whole - self.whole
        if whole <= 0:
            return None
        others = (later.busy - self.busy) - (later.own - self.own)
        return min(max(others / whole, 0.0), 1.0)


def told_other_work(share: float | None) -> str:
    """Warn of times that were taken on a busy machine; empty where it was not, or nobody knows."""
    if share is None or share < BUSY_SHARE:
        return ""
    return (
        f"other programs had {100 * share:.0f} % of this machine's processor time meanwhile: alone "
        "all would have been faster, and not all by the same factor"
    )
