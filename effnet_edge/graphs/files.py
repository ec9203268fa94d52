"""Opens ONNX files: what is wrong with one is told in a line that names it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.errors import BackendError, UsageError, first_line
from effnet_edge.graphs.limits import refuse_greedy

if TYPE_CHECKING:
    import onnx


def load_onnx(path: str | os.PathLike[str], *, weights: bool = True) -> onnx.ModelProto:
    """Read a model, with the weights that it keeps in files of their own beside it.

    Args:
        weights: False leaves those files alone; such a model tells shapes, and cannot be run.

    Raises:
        UsageError: there is no such file.
        BackendError: it is no ONNX model, a file with its weights is missing, too short or not
            beside it, or the graph asks for more than `refuse_greedy` allows.
    """
    import onnx

    if not Path(path).is_file():
        raise UsageError(f"{path}: no such ONNX file")
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # protobuf's exceptions, by format, share no public base class
        raise BackendError(f"{path} is not an ONNX model: {first_line(error)}") from error
    if not model.HasField("graph"):
        raise BackendError(f"{path} is not an ONNX model: it has no graph")
    refuse_greedy(model, path)
    if weights:
        _load_weights(model, path)
    return model


def _load_weights(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    from onnx.external_data_helper import load_external_data_for_model

    try:
        load_external_data_for_model(model, os.fspath(Path(path).parent))
    except Exception as error:  # the checker's exceptions share no base class with OSError
        raise BackendError(
            f"{path}: the files with its weights cannot be read: {first_line(error)}"
        ) from error
