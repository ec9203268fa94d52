"""Clusters inside the test's own process."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from effnet_edge.fleet import node

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from effnet_edge.fleet.orders import Job
    from effnet_edge.fleet.package import Package
    from effnet_edge.fleet.running import Lost


def for_real(order: Package) -> bytes:
    """What a node answers, without a process of its own."""
    return node.do(order.pack())


class FakeCluster:
    """Does the jobs one after the other when they are waited for.

    Args:
        kinds: how many nodes there are of each kind; may be changed from outside.
        answer: what is sent back for an order.
    """

    patience = 0.0

    def __init__(
        self,
        kinds: Mapping[str, int],
        answer: Callable[[Package], bytes | Lost] = for_real,
    ) -> None:
        self.kinds = dict(kinds)
        self.answer = answer
        self.started: list[tuple[str, str]] = []
        self._orders: deque[tuple[str, str, Package]] = deque()

    def nodes(self, kind: str) -> int:
        return self.kinds.get(kind, 0)

    def start(self, job: Job, order: Package) -> None:
        busy = sum(kind == job.kind for _, kind, _ in self._orders)
        assert busy < self.nodes(job.kind), f"{job.kind} has no free node"
        self.started.append((job.bundle, job.kind))
        self._orders.append((job.key, job.kind, order))

    def wait(self, seconds: float) -> tuple[str, bytes | Lost] | None:
        del seconds
        if not self._orders:
            return None
        key, _, order = self._orders.popleft()
        return key, self.answer(order)

    def close(self) -> None:
        self._orders.clear()
