"""Processes of Python that this one starts, what they may take, and what they may not inherit.

For libraries that can neither be interrupted nor limited within a process, and that crash.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from types import TracebackType


class ProcessLock:
    """A lock that the child of a fork finds open.

    The thread that held it at the fork is not there to open it.
    """

    _all: ClassVar[weakref.WeakSet[ProcessLock]] = weakref.WeakSet()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    @classmethod
    def open_all(cls) -> None:
        """Open those of this process, which is the child of a fork and has one thread."""
        for each in cls._all:
            each._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ProcessLock.open_all)


def places_of_code() -> list[str]:
    """Where this process finds its modules, but for the current directory.

    The file that is to be read may lie there, and beside it a `numpy.py` that came with it.
    """
    own, here = Path(__file__).parents[1], Path.cwd()
    places = [Path(each) for each in sys.path if Path(each).is_absolute()]
    return [str(each) for each in places if each == own or each != here]


def limit_memory(more_bytes: int) -> None:
    """Hold this process to so many more bytes than it has now; what it leaves is no core file."""
    import resource

    with open("/proc/self/statm", encoding="ascii") as sizes:  # noqa: PTH123 - no pathlib here
        pages = int(sizes.read().split()[0])
    most = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def limit_processor(seconds: int) -> None:
    """End this process with SIGXCPU once it has had so many more seconds, if not called again."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    end = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (end, resource.getrlimit(resource.RLIMIT_CPU)[1]))
