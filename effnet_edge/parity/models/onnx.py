"""ONNX models as parity sees them: pixels in, logits out, inner tensors on demand."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.graphs.editing import copied, rename_tensors
from effnet_edge.graphs.files import load_onnx
from effnet_edge.graphs.rounding import with_rounding
from effnet_edge.graphs.sessions import Session
from effnet_edge.parity.batch_sizes import range_of_file
from effnet_edge.parity.inside.alignment import names_like
from effnet_edge.parity.inside.onnx_graph import OnnxGraph
from effnet_edge.parity.inside.tracing import (
    LOGITS,
    SIMULATED,
    Activations,
    Given,
    Grid,
    Kernel,
    Parameters,
)
from effnet_edge.parity.models.batches import Traces, filled_batches, joined, without_logits
from effnet_edge.parity.models.ending import without_ones
from effnet_edge.parity.models.onnx_interface import (
    batch_limits,
    entrance_of_onnx,
    way_out_of_onnx,
    with_chosen_output,
)
from effnet_edge.parity.models.reading import AS_TOLD, Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

    from effnet_edge.parity.inside.tracing import Traceable
    from effnet_edge.parity.models.entrance import Entrance
    from effnet_edge.pictures.image import Preprocessing


class OnnxClassifier:
    """An ONNX model, ours or foreign, run by onnxruntime on the CPU with its graph as it is.

    Graph optimizations are off, so that what is compared is the graph in the file and not what
    onnxruntime makes of it.

    Args:
        model: a file, or a model in memory.
        rounding: run a graph in FP16 as hardware with FP16 does; see `with_rounding`.
        reading: what the file does not tell of its input and its outputs.
        threads: how many compute, on which the last bits depend; ONNX Runtime's choice if None.

    Attributes:
        entrance, way_out: how pictures go in, and what comes out.

    Raises:
        UsageError: there is no such file, or the reading does not fit.
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
        reading: Reading = AS_TOLD,
        threads: int | None = None,
    ) -> None:
        self.name = name or (Path(model).name if isinstance(model, (str, os.PathLike)) else "onnx")
        self._preprocessing = preprocessing
        self._reading = reading
        in_memory = load_onnx(model) if isinstance(model, (str, os.PathLike)) else model
        self._model = with_chosen_output(in_memory, self.name, reading)
        self.entrance = entrance_of_onnx(self._model, self.name, reading)
        self.way_out = way_out_of_onnx(self._model, self.name)
        self.execution_precision = "FP32"
        if rounding:
            self.execution_precision = f"{self._graph.written_precision}{SIMULATED}"
            self._model = with_rounding(self._model)
            del self._graph
        self._threads = threads
        self._session = self._open(self._model)
        self._traces: Traces[Session] = Traces()
        self._limits = batch_limits(self._model, self.entrance.name)
        self.batch = range_of_file(*self._limits)

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """uint8 images (N, H, W, C) → float32 logits or features (N, classes)."""
        return self.way_out.rows(self.answers(batch), self.name)

    def answers(self, batch: NDArray[np.uint8]) -> NDArray[np.generic]:
        """What comes out for images, as it is."""
        pixels = self.entrance.values(batch, self._preprocessing)
        parts = [
            self._session.run({self.entrance.name: part})[0]
            for (part,) in filled_batches([pixels], *self._limits)
        ]
        return joined(parts, len(batch))

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
        given = without_logits(given)
        session = self._traces.get(
            names, given, lambda: self._open(self._graph.traced(names, list(given)))
        )
        values = {self._graph.given_input(name): each for name, each in given.items()}
        values[self.entrance.name] = self.entrance.values(batch, self._preprocessing)
        taken = {each.name: each.type for each in session.inputs if each.name in values}
        feeds = [_as_type(values[name], kind) for name, kind in taken.items()]
        outputs = [
            session.run(dict(zip(taken, part, strict=True)))
            for part in filled_batches(feeds, *self._limits)
        ]
        found = {
            name: joined([np.atleast_1d(each[index]) for each in outputs], len(batch))
            for index, name in enumerate(names)
        }
        return {
            name: without_ones(values) if name == LOGITS else values
            for name, values in found.items()
        }

    def named_like(self, reference: Traceable) -> OnnxClassifier:
        """The same model with the reference's names for the tensors that are recognized."""
        names = names_like(self._model, self, reference)
        model = copied(self._model)
        rename_tensors(model.graph, names)
        same = OnnxClassifier(model, self._preprocessing, self.name, reading=self._reading)
        same.execution_precision = self.execution_precision
        if not self.way_out.by_graph:
            same.way_out = self.way_out
        return same

    def _open(self, model: onnx.ModelProto) -> Session:
        # Two models take turns: threads that wait busily take the cores from the other one.
        return Session(
            model.SerializeToString(),
            self.name,
            optimized=False,
            spinning=False,
            threads=self._threads,
        )

    @cached_property
    def _graph(self) -> OnnxGraph:
        return OnnxGraph(self._model, self.way_out.logits)


def _as_type(values: NDArray[np.generic], onnx_type: str) -> NDArray[np.generic]:
    types = {"float": np.float32, "float16": np.float16, "double": np.float64}
    wanted = types.get(onnx_type.removeprefix("tensor(").removesuffix(")"))
    return values if wanted is None else values.astype(wanted, copy=False)


def onnx_entrance(path: str | os.PathLike[str], reading: Reading = AS_TOLD) -> Entrance:
    """How pictures go into the model of a file; raises as `OnnxClassifier`."""
    return entrance_of_onnx(load_onnx(path), Path(path).name, reading)
