"""LiteRT's interpreter for a checked model: one place that opens and runs it, with XNNPACK."""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.machine import usable_cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

# What it says once a process, whatever it was asked for.
_ANNOUNCEMENT = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
_STDERR = 2

_announced = threading.Event()


class LiteRtInterpreter:
    """A model and the room that its tensors take, for one caller at a time.

    Args:
        content: of the file; what `effnet_edge.runtime.demand.litert_steps` has not passed may
            end the process.
        threads: that compute; as many as this process may use processors if None.

    Raises:
        ImportError: LiteRT is not installed, or broken.
        ValueError, RuntimeError: LiteRT refuses the model; the text says why.
    """

    def __init__(self, content: bytes, threads: int | None = None) -> None:
        from ai_edge_litert import interpreter

        with _without_announcement():
            self._interpreter = interpreter.Interpreter(
                model_content=content, num_threads=threads or usable_cores()
            )
            self._interpreter.allocate_tensors()
        self._inputs = self._interpreter.get_input_details()
        self._outputs = [each["index"] for each in self._interpreter.get_output_details()]
        self._shapes = [tuple(each["shape"].tolist()) for each in self._inputs]

    def run(self, feeds: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """All outputs, in memory of their own, for one array an input, of its type.

        Room for another batch is made when it comes.

        Raises:
            ValueError, RuntimeError: LiteRT fails; the text says why.
        """
        self._make_room([each.shape for each in feeds])
        for details, values in zip(self._inputs, feeds, strict=True):
            self._interpreter.set_tensor(details["index"], values)
        self._interpreter.invoke()
        return [np.asarray(self._interpreter.get_tensor(index)) for index in self._outputs]

    def _make_room(self, shapes: list[tuple[int, ...]]) -> None:
        if shapes == self._shapes:
            return
        self._shapes = []  # so that after an interrupt it is made again
        for details, shape in zip(self._inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(details["index"], shape, strict=True)
        self._interpreter.allocate_tensors()
        self._shapes = shapes


@contextmanager
def _without_announcement() -> Iterator[None]:
    """Keep that line from standard error; what anybody else writes there meanwhile comes later."""
    if _announced.is_set():
        yield
        return
    with ExitStack() as stack:
        try:
            kept = stack.enter_context(tempfile.TemporaryFile())
            stderr = os.dup(_STDERR)
        except OSError:  # nowhere to keep it, as on a device that is only read; or it is closed
            yield
            return
        os.dup2(kept.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(stderr, _STDERR)
            os.close(stderr)
            kept.seek(0)
            lines = kept.read().splitlines(keepends=True)
            if any(line.strip() == _ANNOUNCEMENT for line in lines):
                _announced.set()
            os.write(_STDERR, b"".join(line for line in lines if line.strip() != _ANNOUNCEMENT))
