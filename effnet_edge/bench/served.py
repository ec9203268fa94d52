"""Requests to a served model for timing, whose answers are held against those without load."""

from __future__ import annotations

from itertools import cycle
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.errors import BackendError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effnet_edge.serving.description import ServedTensor
    from effnet_edge.serving.model import ServedModel
    from effnet_edge.size import Size

_BATCHES = 4
# Other batch sizes, which a server makes of what comes at once, round otherwise: INT8 engines by a
# few per cent.
_MOST_DIFFERENCE = 0.3


class ServedRequests:
    """Requests of `batch` images of noise each, ready to be sent one after the other.

    Args:
        size: of the images where the server leaves it open; None where nobody tells.

    Raises:
        UsageError: the model takes another number of images, or it is not known what it takes.
        BackendError: it is not one input and one output of numbers.
        ServerError, BackendError: as `ServedModel.send`.
    """

    def __init__(self, model: ServedModel, batch: int, size: Size | None) -> None:
        self._model, self._batch = model, batch
        told = model.description
        name = str(model.address)
        if len(told.inputs) != 1 or not told.outputs:
            raise BackendError(
                f"{name}: it has {len(told.inputs)} inputs and {len(told.outputs)} outputs, and "
                "only models of one input are timed"
            )
        if batch < told.least or (told.most is not None and batch > told.most):
            just = told.least == told.most
            most = f"just {told.most}" if just else f"at most {told.most}"
            raise UsageError(f"--batch {batch}: {name} takes {most} images a request")
        (taken,), self._output = told.inputs, told.outputs[0].name
        shape = (batch, *_open_filled(taken, size, name))
        generator = np.random.default_rng(0)
        values = [_noise(generator, shape, taken.dtype, name) for _ in range(_BATCHES)]
        requests = [model.prepare(taken, each, self._output) for each in values]
        self._alone = [self._answer(each) for each in requests]
        self._power = float(np.mean([np.mean(np.square(each)) for each in self._alone]))
        self._turns = cycle(zip(requests, self._alone, strict=True))
        self._lock = Lock()

    def send(self) -> None:
        """Send the next request and look at its answer; from any thread.

        Raises:
            BackendError: it is another one than without load.
            ServerError, BackendError: as `ServedModel.send`.
        """
        with self._lock:
            request, alone = next(self._turns)
        answer = self._answer(request)
        difference = (
            float(np.mean(np.square(answer - alone), axis=-1).max())
            if answer.shape == alone.shape
            else np.inf
        )
        if not difference <= _MOST_DIFFERENCE**2 * self._power:
            raise BackendError(
                f"{self._model.address}: it answers the same images otherwise under load than "
                "alone: a time for wrong answers is not told"
            )

    def _answer(self, request: Any) -> NDArray[np.float64]:
        return self._model.send(request, self._output, self._batch).astype(np.float64)


def _open_filled(taken: ServedTensor, size: Size | None, name: str) -> tuple[int, ...]:
    """The input's axes but for the batch, open ones filled with height and width in turn."""
    sides = [] if size is None else [size.height, size.width]
    filled = []
    for axis in taken.shape[1:]:
        if axis is None and not sides:
            raise UsageError(
                f"{name}: it leaves the size of its images open: time a bundle of it beside it, "
                "which tells it"
            )
        filled.append(sides.pop(0) if axis is None else axis)
    return tuple(filled)


def _noise(
    generator: np.random.Generator, shape: tuple[int, ...], dtype: str, name: str
) -> NDArray[np.generic]:
    """Pixels of 0 to 255, or normalized ones; no time depends on them."""
    if len(shape) != 4 or dtype not in ("uint8", "float16", "float32", "float64"):
        raise BackendError(f"{name}: its input of {dtype} {shape} is no batch of images")
    if dtype == "uint8":
        return generator.integers(0, 256, shape, np.uint8)
    return generator.standard_normal(shape, np.float32).astype(dtype)
