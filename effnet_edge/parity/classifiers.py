"""The PyTorch network and ONNX models as parity sees them: pixels in, logits out, layers on demand.

Engines in a bundle are run by `effnet_edge.runtime.EngineRunner`, which has the same `infer`.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.errors import BackendError, UsageError, first_line
from effnet_edge.image import Preprocessing, normalize
from effnet_edge.parity.alignment import names_like, renamed
from effnet_edge.parity.batch_sizes import range_of_file
from effnet_edge.parity.onnx_rounding import with_rounding
from effnet_edge.parity.onnx_surgery import OnnxGraph
from effnet_edge.parity.tracing import (
    LOGITS,
    PREPROCESSED,
    SIMULATED,
    Activations,
    Grid,
    Kernel,
    Parameters,
    pieces,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx
    import torch
    from numpy.typing import NDArray

    from effnet_edge.model.network import EfficientNet
    from effnet_edge.parity.tracing import Traceable

# The modules that give the logits, or the features where there is no classifier.
_CLASSIFIER = "classifier"
_POOL = "pool"


class TorchClassifier:
    """The reference: an `EfficientNet` in evaluation mode, float32."""

    execution_precision = "FP32"
    stored_precision = "FP32"

    def __init__(
        self, network: EfficientNet, preprocessing: Preprocessing, name: str = "torch"
    ) -> None:
        self.name = name
        self._network = network.eval()
        self._preprocessing = preprocessing

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """uint8 images (N, H, W, C) → float32 logits or features (N, classes)."""
        import torch

        with torch.inference_mode():
            logits: NDArray[np.float32] = self._network(self._input(batch)).numpy()
        return logits

    def kernels(self) -> list[Kernel]:
        """The modules that compute something, in the order of execution.

        Containers and no-ops give what another module gave already, and are left out.
        """
        return [
            Kernel((name,), operation, "FP32") for name, operation in self._executed_modules.items()
        ]

    def grids(self) -> list[Grid]:
        """None: nothing is rounded."""
        return []

    def parameters(self, tensor: str) -> Parameters | None:
        """Of the convolution or dense layer with this path; batch norm is not folded in."""
        import torch

        module = None if tensor == PREPROCESSED else self._module(tensor)
        if not isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            return None
        weight = module.weight.detach().numpy()
        bias = None if module.bias is None else module.bias.detach().numpy()
        if isinstance(module, torch.nn.Linear):
            return Parameters(weight, bias, None, None)
        return Parameters(weight, bias, _pads(module), tuple(module.stride))

    def activations(self, batch: NDArray[np.uint8], names: Sequence[str]) -> Activations:
        """The outputs of the modules with these paths."""
        return self._traced(batch, names, {})

    def isolated(
        self,
        batch: NDArray[np.uint8],
        names: Sequence[str],
        given: Mapping[str, NDArray[np.generic]],
    ) -> Activations:
        """The modules' outputs, each computed from the given ones; see `Traceable`."""
        return self._traced(batch, names, given)

    def _traced(
        self,
        batch: NDArray[np.uint8],
        names: Sequence[str],
        given: Mapping[str, NDArray[np.generic]],
    ) -> Activations:
        import torch

        wanted, found = set(names), {}

        def hook(name: str) -> Any:
            def keep(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor | None:
                if name in wanted:
                    found[name] = output.numpy()
                return torch.from_numpy(given[name].copy()) if name in given else None

            return keep

        pixels = self._input(batch)
        if PREPROCESSED in wanted:
            found[PREPROCESSED] = pixels.numpy()
        if PREPROCESSED in given:
            pixels = torch.from_numpy(given[PREPROCESSED].copy())
        hooks = [
            self._module(name).register_forward_hook(hook(name))
            for name in wanted.union(given) - {PREPROCESSED}
        ]
        try:
            with torch.inference_mode():
                self._network(pixels)
        finally:
            for each in hooks:
                each.remove()
        return found

    @cached_property
    def _executed_modules(self) -> dict[str, str]:
        """Name and kind of each module whose output nothing gave before it."""
        import torch

        executed = {PREPROCESSED: "Normalize"}
        latest: list[torch.Tensor] = []

        def hook(name: str) -> Any:
            def record(module: object, _inputs: object, output: torch.Tensor) -> None:
                if not latest or output is not latest[-1]:
                    executed[name] = type(module).__name__
                latest[:] = [output]

            return record

        modules = {name: each for name, each in self._network.named_modules() if name}
        hooks = [
            module.register_forward_hook(hook(LOGITS if name == self._last_module else name))
            for name, module in modules.items()
        ]
        side, channels = self._preprocessing.resolution, self._preprocessing.channels
        try:
            with torch.inference_mode():
                self._network(self._input(np.zeros((1, side, side, channels), np.uint8)))
        finally:
            for each in hooks:
                each.remove()
        return executed

    def _module(self, name: str) -> torch.nn.Module:
        return self._network.get_submodule(self._last_module if name == LOGITS else name)

    @property
    def _last_module(self) -> str:
        return _POOL if self._network.output_kind == "features" else _CLASSIFIER

    def _input(self, batch: NDArray[np.uint8]) -> torch.Tensor:
        import torch

        return torch.from_numpy(normalize(batch, self._preprocessing))


def _pads(module: torch.nn.Conv2d) -> tuple[int, ...]:
    """Top, left, bottom, right; the network's own convolutions pad unevenly by themselves."""
    explicit = getattr(module, "explicit_padding", None)
    if explicit is not None:
        left, right, top, bottom = explicit
        return (top, left, bottom, right)
    rows, columns = (int(each) for each in module.padding)
    return (rows, columns, rows, columns)


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
        BackendError: the file is no ONNX model, or not one that onnxruntime can run.
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
        self._model = _load(model) if isinstance(model, (str, os.PathLike)) else model
        self.execution_precision = "FP32"
        if rounding:
            self.execution_precision = f"{self._graph.written_precision}{SIMULATED}"
            self._model = with_rounding(self._model)
            del self._graph
        self._session = _session(self._model, self.name)
        self._traces: dict[tuple[tuple[str, ...], tuple[str, ...]], Any] = {}
        size = self._session.get_inputs()[0].shape[0]
        fixed = isinstance(size, int)
        self._least: int = size if fixed else 1
        self._most: int | None = size if fixed else None
        self.batch = range_of_file(self._least, self._most)

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """uint8 images (N, H, W, C) → float32 logits or features (N, classes)."""
        outputs = [
            self._run(self._session, part)[0]
            for part in self._parts({self._input_name: self._input(batch)})
        ]
        return np.concatenate(outputs)[: len(batch)].astype(np.float32)

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

    def activations(self, batch: NDArray[np.uint8], names: Sequence[str]) -> Activations:
        """The tensors with these names, by name."""
        return self._traced(batch, names, {})

    def isolated(
        self,
        batch: NDArray[np.uint8],
        names: Sequence[str],
        given: Mapping[str, NDArray[np.generic]],
    ) -> Activations:
        """The tensors, each computed from the given ones; see `Traceable`."""
        return self._traced(batch, names, given)

    def named_like(self, reference: Traceable) -> OnnxClassifier:
        """The same model with the reference's names for the tensors that are recognized."""
        names = names_like(self._model, self, reference)
        same = OnnxClassifier(renamed(self._model, names), self._preprocessing, self.name)
        same.execution_precision = self.execution_precision
        return same

    def _traced(
        self,
        batch: NDArray[np.uint8],
        names: Sequence[str],
        given: Mapping[str, NDArray[np.generic]],
    ) -> Activations:
        key = (tuple(names), tuple(given))
        if key not in self._traces:
            # Of the two ways to trace, with values given and without, each is kept once.
            self._traces = {
                each: v for each, v in self._traces.items() if bool(each[1]) != bool(given)
            }
            self._traces[key] = _session(self._graph.traced(*key), self.name)
        session = self._traces[key]
        feeds = {self._graph.given_input(name): value for name, value in given.items()}
        feeds[self._input_name] = self._input(batch)
        taken = {each.name: each.type for each in session.get_inputs()}
        feeds = {
            name: _as_type(value, taken[name]) for name, value in feeds.items() if name in taken
        }
        outputs = [self._run(session, part) for part in self._parts(feeds)]
        return {
            name: np.concatenate([np.atleast_1d(output[index]) for output in outputs])[: len(batch)]
            for index, name in enumerate(names)
        }

    @cached_property
    def _graph(self) -> OnnxGraph:
        return OnnxGraph(self._model)

    @property
    def _input_name(self) -> str:
        return str(self._session.get_inputs()[0].name)

    def _input(self, batch: NDArray[np.uint8]) -> NDArray[np.generic]:
        takes_pixels = self._session.get_inputs()[0].type == "tensor(uint8)"
        return batch if takes_pixels else normalize(batch, self._preprocessing)

    def _parts(
        self, feeds: Mapping[str, NDArray[np.generic]]
    ) -> list[dict[str, NDArray[np.generic]]]:
        """The feeds in pieces of the model's own batch, the last one filled up with zeros."""
        length = len(next(iter(feeds.values())))
        return [
            {name: _filled(value[part], missing) for name, value in feeds.items()}
            for part, missing in pieces(length, self._least, self._most)
        ]

    def _run(self, session: Any, feeds: Mapping[str, NDArray[np.generic]]) -> Any:
        try:
            return session.run(None, feeds)
        except Exception as error:
            raise BackendError(f"{self.name}: onnxruntime: {first_line(error)}") from error


def _filled(values: NDArray[np.generic], missing: int) -> NDArray[np.generic]:
    if not missing:
        return np.ascontiguousarray(values)
    return np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])


def _as_type(values: NDArray[np.generic], onnx_type: str) -> NDArray[np.generic]:
    types = {"float": np.float32, "float16": np.float16, "double": np.float64}
    wanted = types.get(onnx_type.removeprefix("tensor(").removesuffix(")"))
    return values if wanted is None else values.astype(wanted, copy=False)


def _load(path: str | os.PathLike[str]) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    if not Path(path).is_file():
        raise UsageError(f"{path}: no such ONNX file")
    try:
        return onnx.load(os.fspath(path))
    except (DecodeError, OSError, ValueError) as error:
        raise BackendError(f"{path} is not an ONNX model: {first_line(error)}") from error


def _session(model: onnx.ModelProto, name: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            "onnxruntime is not installed: pip install 'effnet-edge[onnxruntime]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    # Two models take turns: threads that wait busily for work take the cores from the other one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise BackendError(f"{name}: onnxruntime: {first_line(error)}") from error


def onnx_input_shape(path: str | os.PathLike[str]) -> list[int]:
    """The first input's shape, 0 for a dimension that is not fixed; raises as `OnnxClassifier`."""
    graph = _load(path).graph
    constants = {each.name for each in graph.initializer}
    values = [value for value in graph.input if value.name not in constants]
    return [dim.dim_value for dim in values[0].type.tensor_type.shape.dim] if values else []
