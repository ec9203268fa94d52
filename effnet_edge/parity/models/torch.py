"""The PyTorch network as parity sees it: pixels in, logits out, modules on demand."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet_edge.parity.inside.tracing import (
    LOGITS,
    PREPROCESSED,
    Activations,
    Given,
    Grid,
    Kernel,
    Parameters,
)
from effnet_edge.pictures.image import Preprocessing, normalize

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from effnet_edge.model.network import EfficientNet

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

    @property
    def model_bytes(self) -> int:
        """What its parameters and the batch norm's statistics take."""
        return sum(each.numel() * each.element_size() for each in self._network.tensors().values())

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

    def activations(
        self, batch: NDArray[np.uint8], names: Sequence[str], given: Given | None = None
    ) -> Activations:
        """The outputs of the modules with these paths; see `Traceable`."""
        import torch

        wanted, found = set(names), {}
        given = given or {}

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
        size, channels = self._preprocessing.resolution, self._preprocessing.channels
        blank = np.zeros((1, size.height, size.width, channels), np.uint8)
        try:
            with torch.inference_mode():
                self._network(self._input(blank))
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
