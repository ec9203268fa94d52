"""The libraries TensorRT and TensorRT-RTX: found, and listened to."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

from effnet_edge.errors import BackendError
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    from effnet_edge.runtime.tensorrt.api import TensorRt

_REASON_WIDTH = 400


def library_of(target: str) -> TensorRt:
    """Import the Python module of a target that is built on the device.

    Raises:
        BackendError: it is not installed.
    """
    row = TARGETS[target]
    try:
        return cast("TensorRt", importlib.import_module(row.library))
    except ImportError as error:
        raise BackendError(
            f"{row.title} is not installed here: {row.install_hint} ({row.install_note})"
        ) from error


class ErrorLog:
    """What the library logs as an error; `logger` is to be given to its builder or runtime."""

    def __init__(self, library: TensorRt) -> None:
        self._errors: list[str] = []
        self.logger = _logger(library, self._errors)

    def forget(self) -> None:
        """What came so far is no reason for anything that comes."""
        self._errors.clear()

    def reason(self) -> str:
        """What it logged first, as one line, less where in its sources it happened; then forget."""
        lines = [line for error in self._errors for line in error.splitlines() if line.strip()]
        self.forget()
        told = [line for line in lines if "Error Code" in line and "Cuda Runtime" not in line]
        return " ".join((told or lines or ["it does not say why"])[0].split())[:_REASON_WIDTH]


def _logger(library: TensorRt, errors: list[str]) -> Any:
    class Logger(library.ILogger):  # type: ignore[name-defined, misc]
        def log(self, severity: Any, message: str) -> None:
            if severity <= library.ILogger.ERROR:
                errors.append(message)

    return Logger()
