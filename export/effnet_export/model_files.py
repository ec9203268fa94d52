"""Model files that are not ours: one row a kind, with what opens it and tells its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, Union

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from effnet_edge.model.request import NetworkRequest
    from effnet_edge.parity.models.onnx import OnnxClassifier
    from effnet_edge.parity.models.openvino import OpenVinoClassifier
    from effnet_edge.pictures.image import Preprocessing

FileModel: TypeAlias = Union["OnnxClassifier", "OpenVinoClassifier"]


@dataclass(frozen=True)
class Openings:
    """How to open the models of a comparison.

    Attributes:
        network: PyTorch's, where no bundle tells; of a bundle's only the weights count, its
            checkpoint if that is not where the bundle says.
        device, threads, precision: for the engines.
    """

    network: NetworkRequest
    device: str | None = None
    threads: int | None = None
    precision: str | None = None


@dataclass(frozen=True)
class FileKind:
    """A format.

    Attributes:
        open: called with the file, the preprocessing, how to open it, and the model's name, which
            is the file's if None.
        input_shape: of the model in a file, without what it leaves open.
    """

    open: Callable[[Path, Preprocessing, Openings, str | None], FileModel]
    input_shape: Callable[[Path], list[int]]


def _open_onnx(
    path: Path, preprocessing: Preprocessing, _openings: Openings, name: str | None
) -> FileModel:
    from effnet_edge.parity.models.onnx import OnnxClassifier

    return OnnxClassifier(path, preprocessing, name)


def _onnx_shape(path: Path) -> list[int]:
    from effnet_edge.parity.models.onnx import onnx_input_shape

    return onnx_input_shape(path)


def _open_ir(
    path: Path, preprocessing: Preprocessing, openings: Openings, name: str | None
) -> FileModel:
    from effnet_edge.parity.models.openvino import OpenVinoClassifier

    return OpenVinoClassifier(
        path,
        preprocessing,
        name,
        device=openings.device,
        threads=openings.threads,
        precision=openings.precision,
    )


def _ir_shape(path: Path) -> list[int]:
    from effnet_edge.parity.models.openvino import openvino_input_shape

    return openvino_input_shape(path)


FILE_KINDS = {
    ".onnx": FileKind(_open_onnx, _onnx_shape),
    ".xml": FileKind(_open_ir, _ir_shape),
}
"""By the ending of the file's name."""
