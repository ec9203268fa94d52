"""Engines without a library, for what the runner does around an engine."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from tiny_bundles import CLASSES

if TYPE_CHECKING:
    import numpy.typing as npt


class FakeBackend:
    """An engine that runs only when told to."""

    device = "FAKE"
    execution_precision = "FP32"
    takes_device_arrays = False

    def __init__(self, parallelism: int = 2) -> None:
        self.parallelism = parallelism
        self.go = threading.Event()
        self.running = threading.Semaphore(0)
        self.most_at_once = 0
        self.closed = 0
        self._now = 0
        self._lock = threading.Lock()

    def infer(self, batch: npt.NDArray[np.uint8 | np.float32]) -> npt.NDArray[np.float32]:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        self.running.release()
        assert self.go.wait(60)
        assert not self.closed
        with self._lock:
            self._now -= 1
        return np.zeros((len(batch), CLASSES), np.float32)

    def close(self) -> None:
        self.closed += 1


class SummingBackend:
    """An engine that answers at once with the sum of every image's pixels in each class."""

    device = "FAKE"
    execution_precision = "FP32"
    takes_device_arrays = False

    def __init__(self, parallelism: int = 1) -> None:
        self.parallelism = parallelism
        self.closed = 0

    def infer(self, batch: npt.NDArray[np.uint8 | np.float32]) -> npt.NDArray[np.float32]:
        assert not self.closed
        sums = batch.reshape(len(batch), -1).sum(1, dtype=np.float32)
        return np.repeat(sums[:, None], CLASSES, 1)

    def close(self) -> None:
        self.closed += 1
