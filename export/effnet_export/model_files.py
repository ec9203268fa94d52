"""Model files that are not ours: one row a kind, with what opens it and tells its input."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from effnet_edge.serving.asking import Asking
from effnet_export.said import Said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onnx import FunctionProto, GraphProto, TensorProto

    from effnet_edge.model.request import NetworkRequest
    from effnet_edge.parity.models.entrance import Entrance
    from effnet_edge.parity.models.litert import LiteRtClassifier
    from effnet_edge.parity.models.onnx import OnnxClassifier
    from effnet_edge.parity.models.openvino import OpenVinoClassifier
    from effnet_edge.parity.models.reading import Reading
    from effnet_edge.pictures.image import Preprocessing

FileModel: TypeAlias = Union["OnnxClassifier", "OpenVinoClassifier", "LiteRtClassifier"]


@dataclass(frozen=True)
class Openings:
    """How to open the models of a comparison.

    Attributes:
        network: PyTorch's, where no bundle tells; of a bundle's only the weights count, its
            checkpoint if that is not where the bundle says.
        device, threads, precision: for the engines.
        said: of model files and served models, what they do not tell themselves.
        asking: how served models are asked.
        exact: compute in FP32 where no precision is asked for. On a CPU that has BF16, OpenVINO
            otherwise computes in that, whatever a file holds.
    """

    network: NetworkRequest
    device: str | None = None
    threads: int | None = None
    precision: str | None = None
    said: Said = field(default_factory=Said)
    asking: Asking = field(default_factory=Asking)
    exact: bool = False

    def on_engine(
        self,
        classifier: Callable[..., FileModel],
        path: Path,
        preprocessing: Preprocessing,
        name: str | None,
        reading: Reading,
    ) -> FileModel:
        """Open a file with the class of an engine that has devices, threads and precisions."""
        return classifier(
            path,
            preprocessing,
            name,
            device=self.device,
            threads=self.threads,
            precision=self.precision,
            reading=reading,
        )


@dataclass(frozen=True)
class FileKind:
    """A format.

    Attributes:
        open: called with the file, the preprocessing, how to open it, the reading, and the model's
            name, which is the file's if None.
        entrance: how pictures go into the model of a file.
        files: the file, and those that its weights are in.
    """

    open: Callable[[Path, Preprocessing, Openings, Reading, str | None], FileModel]
    entrance: Callable[[Path, Reading], Entrance]
    files: Callable[[Path], set[Path]]


def _open_onnx(
    path: Path,
    preprocessing: Preprocessing,
    _openings: Openings,
    reading: Reading,
    name: str | None,
) -> FileModel:
    from effnet_edge.parity.models.onnx import OnnxClassifier

    return OnnxClassifier(path, preprocessing, name, reading=reading)


def _onnx_entrance(path: Path, reading: Reading) -> Entrance:
    from effnet_edge.parity.models.onnx import onnx_entrance

    return onnx_entrance(path, reading)


def _onnx_files(path: Path) -> set[Path]:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    tensors = [*_tensors(model.graph), *chain.from_iterable(map(_tensors, model.functions))]
    entries = (entry for tensor in tensors for entry in tensor.external_data)
    weights = {path.parent / entry.value for entry in entries if entry.key == "location"}
    return {path, *weights}


def _tensors(graph: GraphProto | FunctionProto) -> Iterator[TensorProto]:
    """Those that a graph or function holds, in its nodes and in graphs within them, too."""
    yield from getattr(graph, "initializer", ())
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _open_ir(
    path: Path,
    preprocessing: Preprocessing,
    openings: Openings,
    reading: Reading,
    name: str | None,
) -> FileModel:
    from effnet_edge.parity.models.openvino import OpenVinoClassifier

    on_cpu = (openings.device or "CPU").upper() == "CPU"
    if openings.exact and on_cpu and openings.precision is None:
        openings = replace(openings, precision="fp32")
    return openings.on_engine(OpenVinoClassifier, path, preprocessing, name, reading)


def _ir_entrance(path: Path, reading: Reading) -> Entrance:
    from effnet_edge.parity.models.openvino import openvino_entrance

    return openvino_entrance(path, reading)


def _ir_files(path: Path) -> set[Path]:
    return {path, path.with_suffix(".bin")}


def _open_litert(
    path: Path,
    preprocessing: Preprocessing,
    openings: Openings,
    reading: Reading,
    name: str | None,
) -> FileModel:
    from effnet_edge.parity.models.litert import LiteRtClassifier

    return openings.on_engine(LiteRtClassifier, path, preprocessing, name, reading)


def _litert_entrance(path: Path, reading: Reading) -> Entrance:
    from effnet_edge.parity.models.litert import litert_entrance

    return litert_entrance(path, reading)


def _litert_files(path: Path) -> set[Path]:
    return {path}


_KINDS = {
    ".onnx": FileKind(_open_onnx, _onnx_entrance, _onnx_files),
    ".xml": FileKind(_open_ir, _ir_entrance, _ir_files),
    ".tflite": FileKind(_open_litert, _litert_entrance, _litert_files),
}

FILE_ENDINGS = tuple(_KINDS)


def kind_of(path: Path) -> FileKind | None:
    """By the ending of the file's name; None for what is no model file."""
    return _KINDS.get(path.suffix.lower())


def known_kind(file: str | Path) -> FileKind:
    """The same for what is known to be a model file."""
    kind = kind_of(Path(file))
    assert kind is not None
    return kind
