"""Sessions of ONNX Runtime: the one place that opens them, with every error in one line."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from effnet_edge.errors import BackendError, cannot_load, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

TITLE = "ONNX Runtime"
CPU = "CPUExecutionProvider"

TELEMETRY_SWITCH = "ORT_DISABLE_TELEMETRY"
_ERRORS_ONLY = 3
_FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"
_NO_FOLDER = "/dev/null/no-folder"
# What its messages begin with: a code, the file once more, and the place in its sources.
_BEFORE_REASON = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:Load model from .*? failed:)?"
    r"(?:\S+\.(?:h|cc|cpp):\d+ .*?\) )?"
)


class SessionTensor(NamedTuple):
    """An input or output as ONNX Runtime tells it.

    Attributes:
        type: such as "tensor(float)".
        shape: of each axis its length, or its name where that is open, or None.
    """

    name: str
    type: str
    shape: list[int | str | None]

    @classmethod
    def of(cls, told: Any) -> SessionTensor:
        """Copy what a `NodeArg` tells."""
        return cls(told.name, told.type, list(told.shape))


class Session:
    """A model that ONNX Runtime runs; many threads may run it at once.

    Attributes:
        version: of ONNX Runtime.
        providers: the execution providers that it runs on, the first one first.
        inputs, outputs: in order.
    """

    def __init__(
        self,
        model: bytes | Path,
        name: str,
        *,
        provider: str = CPU,
        optimized: bool = True,
        spinning: bool = True,
        threads: int | None = None,
        profile: Path | None = None,
        built_with: str | None = None,
    ) -> None:
        """Open a serialized model, all of whose weights are inside, or a file.

        Args:
            name: what errors call it.
            optimized: let ONNX Runtime rewrite the graph; else it is run node by node.
            spinning: let idle threads wait busily, which takes the cores from other models.
            threads: how many compute; ONNX Runtime's own choice without.
            profile: where the name of a profile begins; `end_profiling` writes it.
            built_with: the version of ONNX Runtime that the model was made with, for errors.

        Raises:
            BackendError: ONNX Runtime is not installed, or cannot run the model.
        """
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        if not optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if not spinning:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = os.fspath(profile)
        self.version = str(onnxruntime.__version__)
        if isinstance(model, bytes):
            # Or weights that such a model keeps elsewhere were looked for in the current directory.
            options.add_session_config_entry(_FOLDER_OF_WEIGHTS, _NO_FOLDER)
        source = model if isinstance(model, bytes) else os.fspath(model)
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=[provider])
            # Read at once: a name of an axis that is not UTF-8 is told when its shape is asked for.
            self.inputs = [SessionTensor.of(each) for each in self._session.get_inputs()]
            self.outputs = [SessionTensor.of(each) for each in self._session.get_outputs()]
        except Exception as error:  # its exceptions share no public base class
            raise cannot_load(name, TITLE, self.version, built_with, _reason(error)) from error
        self._name = name
        self.providers: list[str] = self._session.get_providers()

    def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> list[Any]:
        """All outputs for these inputs, which are read in place.

        Raises:
            BackendError: ONNX Runtime fails.
        """
        try:
            outputs: list[Any] = self._session.run(None, feeds)
        except Exception as error:
            raise BackendError(
                f"{self._name}: {TITLE} failed on a batch: {_reason(error)}"
            ) from error
        return outputs

    def end_profiling(self) -> str:
        """Write the profile, JSON, and give its path."""
        return str(self._session.end_profiling())


def available_providers() -> list[str]:
    """The execution providers of the ONNX Runtime that is installed."""
    providers: list[str] = import_onnxruntime().get_available_providers()
    return providers


def import_onnxruntime() -> Any:
    """Import ONNX Runtime, a module, which then reports nothing to its makers.

    1.32 keeps a number of the device in the user's cache, and asks for the address of its makers'
    collector in the first minute, where it is not told otherwise before it is imported. Whoever
    runs an engine asked for neither. So this comes before other libraries that import it.

    Raises:
        BackendError: it is not installed, or broken.
    """
    os.environ.setdefault(TELEMETRY_SWITCH, "1")
    try:
        import onnxruntime
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        state = "not installed" if missing else f"installed but broken ({first_line(error)})"
        raise BackendError(f"{TITLE} is {state}: pip install 'effnet-edge[onnxruntime]'") from error
    return onnxruntime


def _reason(error: Exception) -> str:
    """What happened, without the code and the place in ONNX Runtime's sources."""
    return first_line(Exception(_BEFORE_REASON.sub("", str(error).strip())))
