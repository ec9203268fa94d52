"""ONNX models as parity sees them: pixels in, logits out, inner tensors on demand."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.errors import BackendError
from effnet_edge.graphs.editing import copied, rename_tensors
from effnet_edge.graphs.files import load_onnx
from effnet_edge.graphs.rounding import with_rounding
from effnet_edge.graphs.sessions import Session
from effnet_edge.parity.batch_sizes import range_of_file
from effnet_edge.parity.inside.alignment import names_like
from effnet_edge.parity.inside.onnx_graph import OnnxGraph
from effnet_edge.parity.inside.tracing import (
    SIMULATED,
    Activations,
    Given,
    Grid,
    Kernel,
    Parameters,
)
from effnet_edge.parity.models.batches import Traces, filled_batches, joined
from effnet_edge.pictures.image import Preprocessing, normalize

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

    from effnet_edge.parity.inside.tracing import Traceable


class OnnxClassifier:
    """An ONNX model, ours or foreign, run by onnxruntime on the CPU with its graph as it is.

    The input is taken to be uint8 pixels (N, H, W, C) where the model says uint8, and normalized
    float32 (N, C, H, W) otherwise. Graph optimizations are off, so that what is compared is the
    graph in the file and not what onnxruntime makes of it.

    Args:
        model: a file, or a model in memory.
        rounding: run a graph in FP16 as hardware with FP16 does; see `with_rounding`.

    Raises:
        UsageError: there is no such file.
        BackendError: the file is no ONNX model, or not one that ONNX Runtime can run, or ONNX
            Runtime is not installed.
    """

    def __init__(
        self,
        model: onnx.ModelProto | str | os.PathLike[str],
        preprocessing: Preprocessing,
        name: str | None = None,
        *,
        rounding: bool = False,
    ) -> None:
        self.name = name or (Path(model).name if isinstance(model, (str, os.PathLike)) else "onnx")
        self._preprocessing = preprocessing
        self._model = load_onnx(model) if isinstance(model, (str, os.PathLike)) else model
        self.execution_precision = "FP32"
        if rounding:
            self.execution_precision = f"{self._graph.written_precision}{SIMULATED}"
            self._model = with_rounding(self._model)
            del self._graph
        self._session = _session(self._model, self.name)
        if not self._session.inputs or not self._session.inputs[0].shape:
            raise BackendError(f"{self.name}: it has no input for a batch of pictures")
        self._input = self._session.inputs[0]
        self._traces: Traces[Session] = Traces()
        size = self._input.shape[0]
        self._limits = (size, size) if isinstance(size, int) else (1, None)
        self.batch = range_of_file(*self._limits)

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """uint8 images (N, H, W, C) → float32 logits or features (N, classes)."""
        pixels = self._values(batch)
        logits = [
            self._session.run({self._input.name: part})[0]
            for (part,) in filled_batches([pixels], *self._limits)
        ]
        return np.concatenate(logits)[: len(batch)].astype(np.float32)

    @property
    def stored_precision(self) -> str:
        """Of the weights: "FP16" where any is stored so, otherwise "FP32"."""
        return self._graph.stored_precision

    def kernels(self) -> list[Kernel]:
        """The nodes."""
        return self._graph.kernels()

    def grids(self) -> list[Grid]:
        """Of the graph's QuantizeLinear nodes that have one scale for the whole tensor."""
        return self._graph.grids()

    def parameters(self, tensor: str) -> Parameters | None:
        """Of the Conv, Gemm or MatMul node that gives this tensor, where they are constants."""
        return self._graph.parameters(tensor)

    def activations(
        self, batch: NDArray[np.uint8], names: Sequence[str], given: Given | None = None
    ) -> Activations:
        """The tensors with these names, by name; see `Traceable`."""
        given = given or {}
        session = self._traces.get(
            names, given, lambda: _session(self._graph.traced(names, list(given)), self.name)
        )
        values = {self._graph.given_input(name): each for name, each in given.items()}
        values[self._input.name] = self._values(batch)
        taken = {each.name: each.type for each in session.inputs if each.name in values}
        feeds = [_as_type(values[name], kind) for name, kind in taken.items()]
        outputs = [
            session.run(dict(zip(taken, part, strict=True)))
            for part in filled_batches(feeds, *self._limits)
        ]
        return {
            name: joined([np.atleast_1d(each[index]) for each in outputs], len(batch))
            for index, name in enumerate(names)
        }

    def named_like(self, reference: Traceable) -> OnnxClassifier:
        """The same model with the reference's names for the tensors that are recognized."""
        names = names_like(self._model, self, reference)
        model = copied(self._model)
        rename_tensors(model.graph, names)
        same = OnnxClassifier(model, self._preprocessing, self.name)
        same.execution_precision = self.execution_precision
        return same

    @cached_property
    def _graph(self) -> OnnxGraph:
        return OnnxGraph(self._model)

    def _values(self, batch: NDArray[np.uint8]) -> NDArray[np.generic]:
        """What the model's own input takes for these images."""
        takes_pixels = self._input.type == "tensor(uint8)"
        return batch if takes_pixels else normalize(batch, self._preprocessing)


def _as_type(values: NDArray[np.generic], onnx_type: str) -> NDArray[np.generic]:
    types = {"float": np.float32, "float16": np.float16, "double": np.float64}
    wanted = types.get(onnx_type.removeprefix("tensor(").removesuffix(")"))
    return values if wanted is None else values.astype(wanted, copy=False)


def _session(model: onnx.ModelProto, name: str) -> Session:
    # Two models take turns: threads that wait busily for work take the cores from the other one.
    return Session(model.SerializeToString(), name, optimized=False, spinning=False)


def onnx_input_shape(path: str | os.PathLike[str]) -> list[int]:
    """The first input's shape, 0 for a dimension that is not fixed; raises as `OnnxClassifier`."""
    graph = load_onnx(path, weights=False).graph
    constants = {each.name for each in graph.initializer}
    values = [value for value in graph.input if value.name not in constants]
    return [dim.dim_value for dim in values[0].type.tensor_type.shape.dim] if values else []
