"""What every backend gives the runner, and loading the one of a target."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from effnet_edge.errors import BackendError, cannot_load
from effnet_edge.machine import INT8_OVERFLOWS, int8_overflows, int8_overflows_by
from effnet_edge.runtime.interface import refuse_other
from effnet_edge.targets import TARGETS
from effnet_edge.text import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    import numpy.typing as npt

    from effnet_edge.bundle import EngineRecord
    from effnet_edge.runtime.interface import Interface


@dataclass(frozen=True)
class EngineSpec:
    """Which engine to load and how to run it.

    `precision` is the execution precision asked for ("fp32", "fp16", "bf16") or None for the
    engine's own choice, `streams` how many batches at once `throughput` is for, None for as many
    as suit the machine; `model_precision` and `built_with` are what the manifest says of the model,
    `engine` what it says of a compiled one, and `interface` what it says goes in and comes out,
    None where there is no manifest. `read` gives the content of a file of the model. `overflows`
    tells that its INT8 weights have the 8 bits that x86 processors without VNNI lose sums of.
    """

    model_path: Path
    model_precision: str
    built_with: str | None = None
    engine: EngineRecord | None = None
    device: str | None = None
    threads: int | None = None
    precision: str | None = None
    throughput: bool = False
    streams: int | None = None
    read: Callable[[Path], bytes] = Path.read_bytes
    interface: Interface | None = None
    overflows: bool = False

    def check(self, real: Interface) -> None:
        """Refuse an engine that is not what its manifest says; raises BundleError."""
        if self.interface is not None:
            refuse_other(self.interface, real, self.model_path)

    def refuse_overflow(self, setting: str | None = None) -> None:
        """Refuse what this machine computes wrongly; raises BackendError.

        Args:
            setting: of the environment, which keeps the library from the processor's VNNI.
        """
        reason = INT8_OVERFLOWS if int8_overflows() else setting and int8_overflows_by(setting)
        if self.overflows and reason:
            raise BackendError(f"{self.model_path}: cannot be loaded: {reason}")


class Backend(Protocol):
    """A loaded engine. Every method but `close` may be called from many threads at once."""

    @property
    def device(self) -> str:
        """The device that really runs the model, as the library names it."""

    @property
    def parallelism(self) -> int:
        """How many batches the engine works on best at the same time."""

    @property
    def execution_precision(self) -> str:
        """The precision most convolutions and matrix products really run in: "FP32", "INT8", …."""

    @property
    def takes_device_arrays(self) -> bool:
        """Whether `infer` takes a `DeviceArray`, too."""

    def infer(self, batch: Any) -> npt.NDArray[np.float32]:
        """Logits (N, classes), in memory of their own, of one batch of a size the engine takes.

        `batch` is an array of the engine's type and shape, or a `DeviceArray` of them.
        """

    def close(self) -> None:
        """Release the engine; called once, when nothing is running."""


def load_backend(target: str, spec: EngineSpec) -> Backend:
    """Load an engine with the library of the target of that name.

    Raises:
        UsageError: an option that this backend or this machine does not have.
        BackendError: the library is missing, or cannot load the engine.
        BundleError: the engine is not what the manifest says, or its file has been changed.

    """
    row = TARGETS[target]
    module, _, name = row.runner.partition(":")
    factory: Callable[[EngineSpec], Backend] = getattr(importlib.import_module(module), name)
    try:
        return factory(spec)
    except ModuleNotFoundError as error:
        raise BackendError(f"{row.title} is not installed: {row.install_hint}") from error
    except ImportError as error:
        raise BackendError(
            f"{row.title} is installed but broken ({one_line(error)}): {row.install_hint}"
        ) from error


def load_error(spec: EngineSpec, title: str, here: str, error: Exception) -> BackendError:
    """The one line for an engine that its library refuses."""
    return cannot_load(spec.model_path, title, here, spec.built_with, one_line(error))


def one_line(error: Exception) -> str:
    """The last line of a library's message: what happened, after where in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return plain(lines[-1]) if lines else type(error).__name__


def most_common_precision(types: Iterable[str]) -> str:
    """The majority among element type names ("f32", "float", "u8", …) as "FP32", "INT8", …."""
    counted = Counter(_PRECISIONS.get(name, name.upper()) for name in types)
    return counted.most_common(1)[0][0] if counted else "UNKNOWN"


_PRECISIONS = {
    "f32": "FP32",
    "float": "FP32",
    "f16": "FP16",
    "float16": "FP16",
    "bf16": "BF16",
    "bfloat16": "BF16",
    "u8": "INT8",
    "i8": "INT8",
    "uint8": "INT8",
    "int8": "INT8",
}
