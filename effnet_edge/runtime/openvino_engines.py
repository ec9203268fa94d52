"""The compiled engines of one OpenVINO model: one for every batch, or one more for single images.

OpenVINO's CPU plugin answers nonsense to a batch of 1 where the model is quantized and its batch
dynamic (2025.4 to 2026.4): right from 2 images on, right with a static batch of 1.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.errors import BackendError
from effnet_edge.runtime.backend import one_line
from effnet_edge.runtime.layer_times import LayerTime, medians

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

SMALLEST_DYNAMIC_INT8_BATCH = 2


class CompiledEngine:
    """A compiled model and a pool of its infer requests, as many as callers were ever at once."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self._idle: deque[Any] = deque()

    def infer(self, batch: npt.NDArray[np.uint8 | np.float32]) -> npt.NDArray[np.float32]:
        """Run one batch; OpenVINO reads `batch` in place and copies the logits out."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        try:
            logits = request.infer({0: batch}, share_inputs=True)[0]
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed on a batch: {one_line(error)}") from error
        finally:
            self._idle.append(request)
        return np.asarray(logits, dtype=np.float32)

    def layer_times(self, batch: npt.NDArray[np.uint8 | np.float32], runs: int) -> list[LayerTime]:
        """Time every node; the model was compiled with `PERF_COUNT`."""
        request = self.compiled.create_infer_request()
        return medians(_node_times(request, batch) for _ in range(runs))


class SingleImageEngine:
    """The same model with a static batch of 1, compiled when it is first asked for.

    Not at once: it doubles the time of loading and the memory of the weights, which a program that
    never runs a single image need not spend.
    """

    def __init__(self, model: Any, compile_model: Callable[[Any], Any]) -> None:
        """`model` is of `openvino.Core.read_model`; `compile_model` compiles such a one."""
        self._model = model
        self._compile = compile_model
        self._lock = threading.Lock()
        self._engine: CompiledEngine | None = None

    def infer(self, batch: npt.NDArray[np.uint8 | np.float32]) -> npt.NDArray[np.float32]:
        """Run one image."""
        with self._lock:
            engine = self._engine
            if engine is None:
                engine = self._engine = CompiledEngine(self._compiled())
                self._model = None
        return engine.infer(batch)

    def _compiled(self) -> Any:
        try:
            make_single(self._model)
            return self._compile(self._model)
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO cannot compile the model for single images: {one_line(error)}"
            ) from error


def make_single(model: Any) -> None:
    """Give an `openvino.Model` a static batch of 1."""
    shape = model.input(0).get_partial_shape()
    shape[0] = 1
    model.reshape(shape)


def _node_times(request: Any, batch: npt.NDArray[np.uint8 | np.float32]) -> list[LayerTime]:
    try:
        request.infer({0: batch}, share_inputs=True)
    except RuntimeError as error:
        raise BackendError(f"OpenVINO failed on a batch: {one_line(error)}") from error
    return [
        LayerTime(node.node_name, node.node_type, node.exec_type, node.real_time.total_seconds())
        for node in request.profiling_info
        if node.status == node.Status.EXECUTED
    ]


def needs_single_image_engine(model: Any, model_precision: str) -> bool:
    """Whether the engine of this `openvino.Model` does not take one image, or not rightly."""
    batch = model.input(0).get_partial_shape()[0]
    return model_precision == "int8" and not (batch.is_static and batch.get_length() == 1)
