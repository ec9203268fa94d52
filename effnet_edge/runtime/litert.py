"""Engines of LiteRT, which was TensorFlow Lite, on the processor."""

from __future__ import annotations

from collections import deque
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.runtime.backend import EngineSpec, load_error, most_common_precision, one_line
from effnet_edge.runtime.demand.litert_steps import COMPUTE, checked_litert, interface_of_litert
from effnet_edge.runtime.litert_interpreter import LiteRtInterpreter
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    import numpy.typing as npt

    from effnet_edge.runtime.demand.litert_model import LiteRtModel

_TITLE = "LiteRT"


class LiteRtBackend:
    """A model and a pool of its interpreters, as many as callers were ever at once.

    Each has weights of its own, in the order in which its kernels read them: `submit`, which uses
    one, saves that memory.
    """

    takes_device_arrays = False
    parallelism = 1
    """One run already uses every thread of the interpreter."""
    device = "CPU"

    def __init__(self, spec: EngineSpec) -> None:
        """Load the model; see `load_backend` for the errors."""
        self._spec = spec
        self._content = spec.read(spec.model_path)
        batch = spec.interface.inputs[0].shape[0].least if spec.interface else 1
        model = checked_litert(self._content, spec.model_path, batch)
        self.execution_precision = precision_of_litert(model)
        refuse_unsupported(spec, self.execution_precision)
        spec.check(interface_of_litert(model))
        self._idle = deque([self._opened()])

    def infer(self, batch: npt.NDArray[np.uint8 | np.float32]) -> npt.NDArray[np.float32]:
        """Run one batch; LiteRT copies `batch` in and the logits out."""
        try:
            interpreter = self._idle.pop()
        except IndexError:
            interpreter = self._opened()
        try:
            (logits,) = interpreter.run([batch])
        except (RuntimeError, ValueError) as error:
            raise BackendError(f"{_TITLE} failed on a batch: {one_line(error)}") from error
        finally:
            self._idle.append(interpreter)
        return np.asarray(logits, dtype=np.float32)

    def close(self) -> None:
        """Release the interpreters."""
        self._idle.clear()

    def _opened(self) -> LiteRtInterpreter:
        try:
            return LiteRtInterpreter(self._content, self._spec.threads)
        except (RuntimeError, ValueError) as error:
            raise load_error(self._spec, _TITLE, installed_version(), error) from error


def precision_of_litert(model: LiteRtModel) -> str:
    """What most convolutions and dense layers run in: LiteRT follows the types in the file.

    Weights that are stored in FP16 are turned into FP32 when the model is loaded, and what weights
    of integers multiply is rounded to integers, too. XNNPACK would compute in FP16 only for a model
    that asks for it in its metadata, which ours do not.
    """
    weighted = (each for each in model.operators if each.kind in COMPUTE)
    types = (model.tensors[each.inputs[1]].dtype for each in weighted)
    return most_common_precision("f32" if each == "float32" else each for each in types)


def installed_version() -> str:
    """Of LiteRT."""
    return metadata.version(TARGETS["litert"].package)


def refuse_unsupported(spec: EngineSpec, runs: str) -> None:
    """Raise UsageError for a device, a mode or a precision that LiteRT does not have.

    Args:
        runs: what the model runs in, as `precision_of_litert` tells.
    """
    if spec.device is not None and spec.device.lower() != "cpu":
        raise UsageError(f"device {spec.device!r} is not available to LiteRT here: choose from CPU")
    if spec.throughput:
        raise UsageError("LiteRT has no throughput mode: leave it out")
    if spec.precision not in (None, runs.lower()):
        raise UsageError(
            f"precision {spec.precision!r}: LiteRT runs this model in {runs}: "
            "leave the precision out"
        )
