"""The PyTorch network and ONNX models as parity sees them: pixels in, logits out, layers on demand.

Engines in a bundle are run by `effnet_edge.runtime.EngineRunner`, which has the same `infer`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.errors import BackendError, UsageError, first_line
from effnet_edge.image import Preprocessing, normalize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx
    import torch
    from numpy.typing import NDArray

    from effnet_edge.model.network import EfficientNet

Activations = dict[str, "NDArray[np.float32]"]


class TorchClassifier:
    """The reference: an `EfficientNet` in evaluation mode, float32."""

    execution_precision = "FP32"

    def __init__(
        self, network: EfficientNet, preprocessing: Preprocessing, name: str = "torch"
    ) -> None:
        self.name = name
        self._network = network.eval()
        self._preprocessing = preprocessing

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """uint8 images (N, H, W, 3) → float32 logits (N, classes)."""
        import torch

        with torch.inference_mode():
            logits: NDArray[np.float32] = self._network(self._input(batch)).numpy()
        return logits

    def tensor_names(self) -> list[str]:
        """Paths of the modules, in the order in which the network defines them."""
        return [name for name, _ in self._network.named_modules() if name]

    def activations(self, batch: NDArray[np.uint8], names: Sequence[str]) -> Activations:
        """The outputs of the modules with these paths."""
        import torch

        found: Activations = {}

        def keep(name: str) -> Any:
            def hook(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
                found[name] = output.numpy()

            return hook

        hooks = [
            self._network.get_submodule(name).register_forward_hook(keep(name)) for name in names
        ]
        try:
            with torch.inference_mode():
                self._network(self._input(batch))
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _input(self, batch: NDArray[np.uint8]) -> torch.Tensor:
        import torch

        return torch.from_numpy(normalize(batch, self._preprocessing))


class OnnxClassifier:
    """An ONNX model, ours or foreign, run by onnxruntime on the CPU with its graph as it is.

    The input is taken to be uint8 pixels (N, H, W, 3) where the model says uint8, and normalized
    float32 (N, 3, H, W) otherwise. Graph optimizations are off, so that what is compared is the
    graph in the file and not what onnxruntime makes of it.

    Args:
        model: a file, or a model in memory.

    Raises:
        UsageError: there is no such file.
        BackendError: the file is no ONNX model, or not one that onnxruntime can run.
    """

    execution_precision = "FP32"

    def __init__(
        self,
        model: onnx.ModelProto | str | os.PathLike[str],
        preprocessing: Preprocessing,
        name: str | None = None,
    ) -> None:
        self.name = name or (Path(model).name if isinstance(model, (str, os.PathLike)) else "onnx")
        self._preprocessing = preprocessing
        self._model = _load(model) if isinstance(model, (str, os.PathLike)) else model
        self._session = _session(self._model, self.name)
        self._batch = self._session.get_inputs()[0].shape[0]

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """uint8 images (N, H, W, 3) → float32 logits (N, classes)."""
        outputs = [
            self._run(self._session, None, chunk)[0][:used] for chunk, used in self._chunks(batch)
        ]
        return np.concatenate(outputs).astype(np.float32)

    def tensor_names(self) -> list[str]:
        """The outputs of all nodes, in topological order."""
        return [output for node in self._model.graph.node for output in node.output if output]

    def op_type(self, tensor_name: str) -> str:
        """The operation that makes this tensor, with its padding where it has one."""
        node = next(node for node in self._model.graph.node if tensor_name in node.output)
        pads = [list(attribute.ints) for attribute in node.attribute if attribute.name == "pads"]
        return f"{node.op_type}, pads {pads[0]}" if pads else node.op_type

    def activations(self, batch: NDArray[np.uint8], names: Sequence[str]) -> Activations:
        """The tensors with these names, by name."""
        session = _session(_with_outputs(self._model, names), self.name)
        parts = [
            [value[:used] if value.ndim else value for value in self._run(session, names, chunk)]
            for chunk, used in self._chunks(batch)
        ]
        return {
            name: np.concatenate([np.atleast_1d(part[index]) for part in parts])
            for index, name in enumerate(names)
        }

    def _chunks(self, batch: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """The batch in pieces of the model's own size, the last one filled up, and each's use."""
        size = self._batch if isinstance(self._batch, int) else len(batch)
        for start in range(0, len(batch), size):
            chunk = batch[start : start + size]
            filling = np.zeros((size - len(chunk), *chunk.shape[1:]), chunk.dtype)
            yield np.concatenate([chunk, filling]), len(chunk)

    def _run(self, session: Any, names: Sequence[str] | None, batch: NDArray[np.uint8]) -> Any:
        model_input = session.get_inputs()[0]
        takes_pixels = model_input.type == "tensor(uint8)"
        value = batch if takes_pixels else normalize(batch, self._preprocessing)
        try:
            return session.run(names, {model_input.name: value})
        except Exception as error:
            raise BackendError(f"{self.name}: onnxruntime: {first_line(error)}") from error


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
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise BackendError(f"{name}: onnxruntime: {first_line(error)}") from error


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    import onnx

    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    del extended.graph.output[:]
    extended.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return extended
