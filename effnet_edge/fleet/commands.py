"""Nodes that are commands: this machine, and others over ssh, with no server and no queue.

A node runs `effnet-edge fleet --node`, which reads an order from its standard input and writes the
result to its standard output. A crash of an engine ends that process alone.
"""

from __future__ import annotations

import queue
import shlex
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from effnet_edge.fleet.running import Lost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from effnet_edge.fleet.orders import Job
    from effnet_edge.fleet.package import Package
    from effnet_edge.fleet.plan import CommandNode

OWN_COMMAND = (
    sys.executable,
    "-c",
    "from effnet_edge.cli.main import main; main()",
    "fleet",
    "--node",
)
"""What makes a node of the Python that runs this."""

# No question for a password, and a host that falls silent is noticed within a minute.
_CONNECT_SECONDS = 15
_SSH = (
    *("ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}"),
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"),
)
_UNREACHED_SECONDS = 2 * _CONNECT_SECONDS
_SSH_FAILED = 255
_NO_PROGRAM = (126, 127)
_END_SECONDS = 5.0
_LINE = 200


@dataclass(frozen=True)
class Ended:
    """What a command gave: its exit code, negative for a signal; None where it took too long."""

    code: int | None
    output: bytes
    errors: bytes

    def result(self, node: str) -> bytes | Lost:
        """What the node sent, or why it sent nothing."""
        if self.code == 0:
            return self.output
        lines = self.errors.decode(errors="replace").strip().splitlines()
        told = f": {lines[-1].strip()[:_LINE]}" if lines else ""
        if self.code is None:
            return Lost(f"{node}: the job took longer than the plan's time-limit", final=True)
        return Lost(f"{node}: the job ended with exit code {self.code}{told}")


def run_command(
    command: Sequence[str],
    content: bytes,
    time_limit: float,
    started: Callable[[subprocess.Popen[bytes]], None] = lambda _: None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a command with `content` as its input, at most so many seconds; never raises OSError.

    Args:
        started: is given the process, so that another thread can end it.
        environment: instead of that of this process.
    """
    try:
        # In a session of its own, so that Ctrl-C reaches it only through us.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        return Ended(_NO_PROGRAM[1], b"", f"{command[0]}: {error.strerror}".encode())
    with process:
        started(process)
        try:
            output, errors = process.communicate(content, timeout=time_limit)
        except subprocess.TimeoutExpired:
            end(process)
            return Ended(None, b"", b"")
        except BaseException:
            end(process)
            raise
        return Ended(process.returncode, output, errors)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here, at first gently."""
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


class CommandNodes:
    """A cluster of nodes that are reached by commands.

    A node that cannot be reached, or has no effnet-edge, is not asked again.
    """

    patience = 0.0

    def __init__(self, nodes: Sequence[CommandNode], time_limit: float) -> None:
        self._time_limit = time_limit
        self._free = list(nodes)
        self._busy: dict[str, CommandNode] = {}
        self._since: dict[str, float] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ended: queue.Queue[tuple[str, Ended]] = queue.Queue()

    def nodes(self, kind: str) -> int:
        """Those of a kind that have not been lost."""
        return sum(node.kind == kind for node in (*self._free, *self._busy.values()))

    def start(self, job: Job, order: Package) -> None:
        """Run the job on a free node, in a thread that feeds and reads its command."""
        node = next(node for node in self._free if node.kind == job.kind)
        self._free.remove(node)
        self._busy[job.key], self._since[job.key] = node, time.monotonic()
        threading.Thread(
            target=self._run, args=(job.key, command_of(node), order.pack()), daemon=True
        ).start()

    def wait(self, seconds: float) -> tuple[str, bytes | Lost] | None:
        """The next job that ends."""
        try:
            key, ended = self._ended.get(timeout=seconds)
        except queue.Empty:
            return None
        self._processes.pop(key, None)
        node, seconds = self._busy.pop(key), time.monotonic() - self._since.pop(key)
        outcome = ended.result(node.name)
        if isinstance(outcome, Lost) and node.ssh and ended.code in (_SSH_FAILED, *_NO_PROGRAM):
            # Later than that the node had begun, and what ended it may have been the job.
            return key, replace(outcome, unreached=seconds <= _UNREACHED_SECONDS)
        self._free.append(node)
        return key, outcome

    def close(self) -> None:
        """End the commands that still run."""
        for process in list(self._processes.values()):
            with suppress(ProcessLookupError):
                end(process)

    def _run(self, key: str, command: Sequence[str], content: bytes) -> None:
        def started(process: subprocess.Popen[bytes]) -> None:
            self._processes[key] = process

        self._ended.put((key, run_command(command, content, self._time_limit, started)))


def command_of(node: CommandNode) -> tuple[str, ...]:
    """What makes a node of that machine; ssh gives its last argument to a shell there."""
    if node.ssh is None:
        return OWN_COMMAND
    return (*_SSH, "--", node.ssh, f"{shlex.quote(node.program)} fleet --node")
