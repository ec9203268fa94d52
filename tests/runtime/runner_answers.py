"""Pictures for the runner's tests and what the tiny model answers to them."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from tiny_bundles import CLASSES, SIDE, tiny_model, truth

if TYPE_CHECKING:
    import numpy.typing as npt

CPU_TARGETS = ["openvino", "onnxruntime", "litert"]
TARGETS = [*CPU_TARGETS, "tensorrt"]
INT8_TARGETS = ["openvino", "onnxruntime", "tensorrt"]
# LiteRT tells when it is loaded what cannot run.
FAILING_TARGETS = ["openvino", "onnxruntime", "tensorrt"]
BATCHES: dict[str, int | str] = {"one": 1, "four": 4, "dynamic": "N"}


def pixels(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


@lru_cache
def expected(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    if count == 0:
        return np.empty((0, CLASSES), np.float32)
    return truth(tiny_model(), pixels(count, seed))


def assert_close(got: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]) -> None:
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def started(function: Any) -> Future[Any]:
    """Run in a thread of its own."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
