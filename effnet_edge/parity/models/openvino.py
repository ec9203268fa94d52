"""An OpenVINO IR as parity sees it: run as OpenVINO runs it, and opened at its fused kernels."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.errors import BackendError, UsageError
from effnet_edge.parity.batch_sizes import range_of_file
from effnet_edge.parity.inside.tracing import (
    LOGITS,
    Activations,
    Given,
    Grid,
    Kernel,
    Parameters,
)
from effnet_edge.parity.models.batches import Traces, filled_batches, joined
from effnet_edge.pictures.image import Preprocessing, normalize
from effnet_edge.runtime.backend import EngineSpec, load_backend, one_line
from effnet_edge.runtime.openvino import compile_model, executed_precision, read_model
from effnet_edge.runtime.openvino_core import import_openvino
from effnet_edge.targets import TARGETS

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from effnet_edge.bundle import BatchRange

_ORIGINAL_NAMES = "originalLayersNames"
_NO_WORK = frozenset({"Const", "Input", "Output"})
_GIVEN = "/given"


class OpenVinoClassifier:
    """An OpenVINO IR, ours or foreign.

    The input is taken to be uint8 pixels (N, H, W, 3) where the model says uint8, and normalized
    float32 (N, 3, H, W) otherwise.

    Args:
        path: the `.xml` file, its `.bin` beside it.
        device, threads, precision: as in `EngineRunner.load`.

    Raises:
        UsageError: there is no such file, or no such device.
        BackendError: OpenVINO is not installed, or cannot load the model.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        preprocessing: Preprocessing,
        name: str | None = None,
        *,
        device: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
    ) -> None:
        file = Path(path)
        if not file.is_file():
            raise UsageError(f"{file}: no such OpenVINO model")
        self.name = name or file.name
        self._preprocessing = preprocessing
        self._spec = EngineSpec(
            file, "unknown", device=device, threads=threads, precision=precision
        )
        self._backend = load_backend("openvino", self._spec)
        self._traces: Traces[Any] = Traces()

    @cached_property
    def execution_precision(self) -> str:
        """What most of it computes in here: "FP32", "BF16", "FP16" or "INT8"."""
        return self._backend.execution_precision

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """uint8 images (N, H, W, 3) → float32 logits (N, classes)."""
        parts = filled_batches([self._input(batch)], *self._limits)
        logits = [self._backend.infer(part) for (part,) in parts]
        return np.concatenate(logits)[: len(batch)]

    @property
    def batch(self) -> BatchRange:
        """The batch sizes that the model takes."""
        return range_of_file(*self._limits)

    @cached_property
    def stored_precision(self) -> str:
        """Of the weights: "FP16" where any is stored so, otherwise "FP32"."""
        stored = (
            node.get_element_type().get_type_name()
            for node in self._model.get_ops()
            if node.get_type_name() == "Constant"
        )
        return "FP16" if "f16" in stored else "FP32"

    def kernels(self) -> list[Kernel]:
        """The kernels that the nodes were fused into, as OpenVINO tells of its compiled graph."""
        compiled = compile_model(self._model, self._spec)
        executed = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
        kernels = [
            self._kernel(info) for info in executed if _text(info, "layerType") not in _NO_WORK
        ]
        return [kernel for kernel in kernels if kernel.tensors]

    def grids(self) -> list[Grid]:
        """Of the FakeQuantize nodes with one range for the whole tensor, and of Q/DQ pairs."""
        return [
            grid
            for node in self._model.get_ordered_ops()
            if node.get_type_name() == "FakeQuantize" and (grid := self._grid(node)) is not None
        ]

    def parameters(self, _tensor: str) -> Parameters | None:
        """None: the compiled model does not show what it computes with."""
        return None

    def activations(
        self, batch: NDArray[np.uint8], names: Sequence[str], given: Given | None = None
    ) -> Activations:
        """The tensors with these names, by name; see `Traceable`."""
        given = given or {}
        compiled = self._traces.get(
            names, given, lambda: compile_model(self._opened(names, given), self._spec)
        )
        feeds = [self._input(batch), *given.values()]
        parts = [self._run(compiled, part) for part in filled_batches(feeds, *self._limits)]
        return {
            name: joined([part[index] for part in parts], len(batch))
            for index, name in enumerate(names)
        }

    def _run(self, compiled: Any, feeds: list[NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        try:
            # A request of its own, so that its buffers are the results and end with them.
            request = compiled.create_infer_request()
            results = request.infer(feeds, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise BackendError(f"{self.name}: OpenVINO: {one_line(error)}") from error
        return [np.asarray(results[index]) for index in range(len(compiled.outputs))]

    def _opened(self, names: Sequence[str], given: Given) -> Any:
        """The model with `names` as its results, where readers of `given` read new parameters."""
        openvino = import_openvino()
        model = self._model.clone()
        ports = _ports(model)
        results = [openvino.opset13.result(ports[name]) for name in names]
        parameters = []
        for name, value in given.items():
            port = ports[name]
            # The candidate's own shape may be what is wrong with it.
            shape = openvino.PartialShape([port.get_partial_shape()[0], *value.shape[1:]])
            parameter = openvino.opset13.parameter(
                shape, port.get_element_type(), name=f"{name}{_GIVEN}"
            )
            for reader in list(port.get_target_inputs()):
                if reader.get_node().get_type_name() != "Result":
                    reader.replace_source_output(parameter.output(0))
            parameters.append(parameter)
        return openvino.Model(results, [*model.get_parameters(), *parameters], "opened")

    @cached_property
    def _model(self) -> Any:
        return read_model(self._spec.model_path)

    @cached_property
    def _tensor_of_node(self) -> dict[str, str]:
        """The tensor that each node gives, by the node's friendly name, which kernels tell."""
        return {
            port.get_node().get_friendly_name(): name for name, port in _ports(self._model).items()
        }

    @cached_property
    def _limits(self) -> tuple[int, int | None]:
        """The fewest and most images that the model takes; None for any number."""
        size = self._model.input(0).get_partial_shape()[0]
        most = int(size.get_max_length())
        return max(int(size.get_min_length()), 1), most if most > 0 else None

    def _input(self, batch: NDArray[np.uint8]) -> NDArray[np.generic]:
        takes_pixels = self._model.input(0).get_element_type().get_type_name() == "u8"
        return batch if takes_pixels else normalize(batch, self._preprocessing)

    def _kernel(self, info: Any) -> Kernel:
        nodes = _text(info, _ORIGINAL_NAMES).split(",")
        tensors = tuple(
            self._tensor_of_node[node] for node in nodes if node in self._tensor_of_node
        )
        return Kernel(tensors, _text(info, "layerType"), executed_precision(info))

    def _grid(self, node: Any) -> Grid | None:
        ends = [_constant(node.input_value(index)) for index in (1, 2)]
        names = [name for name, port in _ports(self._model).items() if port == node.input_value(0)]
        if any(end is None or end.size > 1 for end in ends) or not names:
            return None
        low, high = (float(end.item()) for end in ends if end is not None)
        return Grid(
            node.get_friendly_name(), names[-1], low, high, int(node.get_attributes()["levels"])
        )


def _ports(model: Any) -> dict[str, Any]:
    """The outputs of the nodes by tensor name; what the first result takes is called "logits"."""
    ports = {
        name: port
        for node in model.get_ordered_ops()
        if node.get_type_name() not in ("Constant", "Result", "Parameter")
        for port in node.outputs()
        for name in port.get_names()
    }
    return ports | {LOGITS: model.output(0).get_node().input_value(0)}


def _constant(port: Any) -> NDArray[np.float32] | None:
    node = port.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return np.asarray(node.data, np.float32) if node.get_type_name() == "Constant" else None


def _text(info: Any, key: str) -> str:
    return str(info[key].astype(str)) if key in info else ""


def openvino_input_shape(path: str | os.PathLike[str]) -> list[int]:
    """The first input's shape, 0 for a dimension that is not fixed.

    Raises:
        BackendError: OpenVINO is not installed, or cannot read the model.
    """
    try:
        shape = read_model(path).input(0).get_partial_shape()
    except ModuleNotFoundError as error:
        raise BackendError(
            f"OpenVINO is not installed: {TARGETS['openvino'].install_hint}"
        ) from error
    except RuntimeError as error:
        raise BackendError(f"{path}: it has no input: {one_line(error)}") from error
    return [int(size.get_length()) if size.is_static else 0 for size in shape]
