"""Workers that take turns: each is stopped by a signal while another one works."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from cpu_engines import worker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

PATIENCE = 0.05
"""Seconds from the end of one worker's turn to the next one's: what still runs is then stopped."""


@dataclass(frozen=True)
class Peer:
    """A model and what runs it.

    Attributes:
        engine: one of `worker.ENGINES`.
        python: the interpreter that has the engine.
    """

    name: str
    engine: str
    model: Path
    python: Path


class WorkerError(Exception):
    """A worker that has ended; says with which exit code."""


class Worker:
    """A peer's process, which runs only while it is asked something."""

    def __init__(
        self, peer: Peer, threads: int, pixels: Path, values: Path, errors: IO[bytes]
    ) -> None:
        command = [peer.python, worker.__file__, peer.engine, peer.model, threads, pixels, values]
        self.peer = peer
        self._process = subprocess.Popen(
            [str(each) for each in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            self._told()
        except WorkerError:
            self.close()
            raise

    def ask(self, what: str, argument: object) -> Any:
        """Its answer; raises WorkerError when it ends instead."""
        self._process.send_signal(signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([what, argument]) + "\n")
        self._process.stdin.flush()
        return self._told()

    def _told(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.peer.name} ended with {self._process.wait()}")
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(PATIENCE)
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.close()


def timed(workers: Sequence[Worker], rounds: int, calls: int) -> dict[str, list[list[float]]]:
    """Seconds of each call, by name and round; another worker begins each round."""
    found: dict[str, list[list[float]]] = {each.peer.name: [] for each in workers}
    for index in range(rounds):
        start = index % len(workers)
        for each in [*workers[start:], *workers[:start]]:
            found[each.peer.name].append(each.ask("times", calls))
    return found
