"""Opens ONNX files: what is wrong with one is told in a line that names it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_edge.errors import BackendError, UsageError, told_as_one_line
from effnet_edge.graphs.limits import refuse_greedy

if TYPE_CHECKING:
    import onnx

_UNREADABLE = "it cannot be read as an ONNX model"


def load_onnx(path: str | os.PathLike[str], *, weights: bool = True) -> onnx.ModelProto:
    """Read a model, with the weights that it keeps in files of their own beside it.

    Args:
        weights: False leaves those files alone; such a model tells shapes, and cannot be run.

    Raises:
        UsageError: there is no such file.
        BackendError: it is no ONNX model, a file with its weights is missing, too short or not
            beside it, or the graph asks for more than `refuse_greedy` allows.
    """
    with told_as_one_line(path, _UNREADABLE):
        _refuse_no_file(Path(path))
        content = Path(path).read_bytes()
    model = parsed_onnx(content, path)
    if weights:
        _load_weights(model, path)
    return model


def parsed_onnx(content: bytes, path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model in the content of a file that was read already; its `path` is for the errors.

    Raises:
        BackendError: as of `load_onnx`.
    """
    import onnx

    with told_as_one_line(path, _UNREADABLE):
        model = onnx.load_model_from_string(content)
        if not model.HasField("graph"):
            raise BackendError(f"{path} is not an ONNX model: it has no graph")
        refuse_greedy(model, path)
    return model


def _refuse_no_file(path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not an ONNX file")
    if not path.is_file():
        raise UsageError(f"{path}: no such ONNX file")
    if not path.stat().st_size:
        raise BackendError(f"{path} is not an ONNX model: it is empty: copy or export it again")


def _load_weights(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    from onnx.external_data_helper import load_external_data_for_model

    with told_as_one_line(path, "the files with its weights cannot be read, which lie beside it"):
        load_external_data_for_model(model, os.fspath(Path(path).parent))
