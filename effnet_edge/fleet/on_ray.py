"""Nodes of a Ray cluster, which declare the kind of device that they are as a resource."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import socket
import time
from contextlib import ExitStack, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any

from effnet_edge.errors import BackendError, first_line
from effnet_edge.extras import needed_for
from effnet_edge.fleet.commands import OWN_COMMAND, run_command
from effnet_edge.fleet.package import Package
from effnet_edge.fleet.running import Lost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from effnet_edge.fleet.orders import Job

_NODES_SECONDS = 2.0
_REACH_SECONDS = 10.0
_THREADS = "OMP_NUM_THREADS"
# Of what was sent; the oldest are forgotten, so that a long sweep does not fill the store.
_KEPT_FILES = 64


class _Nowhere(io.TextIOBase):
    """Where Ray prints what it notices of its nodes: standard output is for results."""

    def write(self, text: str) -> int:
        """Forget the text."""
        return len(text)


class RayCluster:
    """A cluster that Ray runs, at an address such as "auto" or "10.0.0.1:6379".

    Files are put into Ray's object store once, however many nodes take them.

    Raises:
        BackendError: Ray is not installed, or there is no cluster at that address.
    """

    patience = 30.0

    def __init__(self, address: str, time_limit: float) -> None:
        with needed_for("a plan with [ray]", "fleet", "or name the machines as [[node]] with ssh"):
            import ray
        _check_reachable(address)
        self._ray: Any = ray
        self._quiet = ExitStack()
        self._quiet.enter_context(redirect_stdout(_Nowhere()))
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # whatever Ray raises: it has no common base
            self._quiet.close()
            raise _no_cluster(address, first_line(error)) from error
        self._time_limit = time_limit
        # Retries are counted in one place, for all clusters.
        self._do = ray.remote(max_retries=0, num_cpus=1)(do_order)
        self._running: dict[Any, str] = {}
        self._stored: dict[bytes, Any] = {}
        self._known: tuple[float, list[dict[str, float]]] = (0.0, [])

    def nodes(self, kind: str) -> int:
        """How many jobs of a kind the living nodes do at a time; a node usually one."""
        return int(sum(resources.get(kind, 0) for resources in self._resources()))

    def start(self, job: Job, order: Package) -> None:
        """Let Ray place the job on a node of its kind."""
        names = list(order.files)
        stored = [self._store(order.files[name]) for name in names]
        task = self._do.options(resources={job.kind: 1}, name=f"{job.bundle} on {job.kind}")
        reference = task.remote(order.document, names, self._time_limit, *stored)
        self._running[reference] = job.key

    def wait(self, seconds: float) -> tuple[str, bytes | Lost] | None:
        """The next job that ends, also because its node does."""
        if not self._running:
            time.sleep(min(seconds, _NODES_SECONDS))
            return None
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        if not ended:
            return None
        key = self._running.pop(ended[0])
        try:
            outcome: bytes | Lost = self._ray.get(ended[0])
        except Exception as error:  # a node or worker that died, or Ray itself
            self._known = (0.0, [])
            return key, Lost(f"Ray: {first_line(error)}")
        return key, outcome

    def close(self) -> None:
        """Take back what is still running, and leave the cluster."""
        for reference in self._running:
            with suppress(Exception):  # it may have ended meanwhile, and its node, too
                self._ray.cancel(reference, force=True)
        self._ray.shutdown()
        self._quiet.close()

    def _store(self, content: bytes) -> Any:
        """A reference to the content; the same for the same content, as long as it is kept."""
        key = hashlib.sha256(content).digest()
        reference = self._stored.pop(key, None)
        if reference is None:
            reference = self._ray.put(content)
        self._stored[key] = reference
        while len(self._stored) > _KEPT_FILES:
            del self._stored[next(iter(self._stored))]
        return reference

    def _resources(self) -> list[dict[str, float]]:
        now = time.monotonic()
        if now - self._known[0] > _NODES_SECONDS:
            alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self._known = (now, alive)
        return self._known[1]


def do_order(
    document: Mapping[str, Any], names: Sequence[str], time_limit: float, *contents: bytes
) -> bytes | Lost:
    """Do an order on the node that Ray chose, in a process of its own.

    Returns:
        What the node's process sent, or why it sent nothing.
    """
    order = Package(dict(document), dict(zip(names, contents, strict=True)))
    # Ray sets one thread for every processor of a task: a device has all of its own.
    environment = {name: value for name, value in os.environ.items() if name != _THREADS}
    ended = run_command(OWN_COMMAND, order.pack(), time_limit, environment=environment)
    return ended.result(os.uname().nodename)


def _check_reachable(address: str) -> None:
    """Find out at once what Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, getattr(error, "strerror", None) or str(error)) from error


def _no_cluster(address: str, reason: str) -> BackendError:
    return BackendError(
        f"there is no Ray cluster at {address} ({reason.rstrip('.')}): start one with ray start "
        "--head, correct the address in [ray], or set its token (RAY_AUTH_MODE)"
    )
