"""How far the outputs reach that `output_grids` decides about, from a pass over the pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from effnet_calibration.ranges import SILU_FLOOR
from effnet_calibration.rounded_outputs import SIGMOID_LARGEST, SIGMOID_SCALE
from effnet_calibration.statistics import FOLDS, ChannelStatistics, TensorStatistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from effnet_calibration.path import Layer, NetworkPath
    from effnet_calibration.work import Work
    from effnet_edge.model.network import EfficientNet

OUTPUT_GRIDS = "output grids"


@dataclass
class Extremes:
    """How far a tensor's channels reach, and their mean square, float64 (C,)."""

    low: Tensor
    high: Tensor
    squares: Tensor
    count: int = 0

    @classmethod
    def empty(cls, channels: int) -> Extremes:
        """Of no values at all."""
        zeros = torch.zeros(channels, dtype=torch.float64)
        return cls(zeros, zeros.clone(), zeros.clone())

    def add(self, values: Tensor) -> None:
        """Count one batch, float32 (N, C) or (N, C, H, W)."""
        flat = values.flatten(2) if values.dim() > 2 else values[:, :, None]
        self.low = torch.minimum(self.low, flat.amin((0, 2)).double())
        self.high = torch.maximum(self.high, flat.amax((0, 2)).double())
        self.squares += flat.square().mean((0, 2)).double() * len(flat)
        self.count += len(flat)

    @property
    def mean_square(self) -> Tensor:
        """Of each channel."""
        return self.squares / max(self.count, 1)


@dataclass
class Lost:
    """What SiLU lacks with a sigmoid of 8 bits, by least squares: float64 (C,)."""

    products: Tensor
    squares: Tensor

    @classmethod
    def empty(cls, channels: int) -> Lost:
        """Of no values at all."""
        zeros = torch.zeros(channels, dtype=torch.float64)
        return cls(zeros, zeros.clone())

    def add(self, values: Tensor) -> None:
        """Count a batch of what goes into a SiLU, float32 (N, C, H, W)."""
        sigmoid = values.sigmoid()
        rounded = sigmoid.div(SIGMOID_SCALE).round_().clamp_(max=SIGMOID_LARGEST)
        rounded.mul_(SIGMOID_SCALE).mul_(values)
        self.products += (sigmoid.mul_(values) * rounded).sum((0, 2, 3)).double()
        self.squares += rounded.square_().sum((0, 2, 3)).double()

    @property
    def factors(self) -> Tensor:
        """What the readers have to multiply by; 1 for a channel of zeros."""
        return torch.where(self.squares > 0, self.products / self.squares, 1.0).clamp(0.99, 1.01)


@dataclass
class Seen:
    """What was seen of the network before it is changed, by module.

    Attributes:
        rounded: of what matters to each activation, by the convolution before it.
        extremes: of all else that is rounded.
        lost: by the sigmoid of each SiLU, by the convolution before it.
    """

    rounded: dict[str, TensorStatistics] = field(default_factory=dict)
    extremes: dict[str, Extremes] = field(default_factory=dict)
    lost: dict[str, Lost] = field(default_factory=dict)


@torch.inference_mode()
def observe_outputs(work: Work) -> Seen:
    """Pass the pictures through the network once more."""
    total, seen = sum(len(batch) for batch in work.exact.batches), 0
    with _Observer(work.network, work.path) as observer:
        for batch in work.exact.batches:
            work.progress(OUTPUT_GRIDS, seen, total)
            observer.images = seen
            work.network(batch.contiguous(memory_format=torch.channels_last))
            seen += len(batch)
    work.progress(OUTPUT_GRIDS, total, total)
    return observer.seen


class _Observer:
    """Watches a network's outputs; a context manager, as the hooks must go again."""

    def __init__(self, network: EfficientNet, path: NetworkPath) -> None:
        self.seen = Seen()
        self.images = 0
        """That passed before the batch at hand: the folds are of the even and the odd ones."""
        self._network = network
        self._path = path
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> _Observer:
        for layer in self._path.main:
            if layer.activation is not None:
                self._watch(layer.name, self._count_rounded)
            for name in _others(layer):
                self._watch(name, self._count_extremes)
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _watch(self, name: str, count: Callable[[str, Tensor], None]) -> None:
        def hook(_: nn.Module, __: tuple[Tensor], output: Tensor) -> None:
            count(name, output)

        self._handles.append(self._network.get_submodule(name).register_forward_hook(hook))

    def _count_extremes(self, name: str, output: Tensor) -> None:
        self.seen.extremes.setdefault(name, Extremes.empty(output.shape[1])).add(output)

    def _count_rounded(self, name: str, output: Tensor) -> None:
        channels = output.shape[1]
        if self._network.activation == "silu":
            self.seen.lost.setdefault(name, Lost.empty(channels)).add(output)
        empty = TensorStatistics(tuple(ChannelStatistics.empty(channels) for _ in range(FOLDS)))
        values = self._before_rounding(output)
        for fold, statistics in enumerate(self.seen.rounded.setdefault(name, empty).folds):
            part = values[(fold - self.images) % FOLDS :: FOLDS]
            if len(part):
                statistics.add(part)

    def _before_rounding(self, values: Tensor) -> Tensor:
        """What of a convolution's output matters to the activation behind it."""
        if self._network.activation == "silu":
            return values.clamp(min=SILU_FLOOR)
        relu = functional.relu6 if self._network.activation == "relu6" else functional.relu
        return relu(values)


def _others(layer: Layer) -> list[str]:
    """The modules behind a layer whose output is rounded."""
    names = [layer.activation if layer.activation is not None else layer.name]
    if layer.activation is None and layer.adds_to is None:
        names = []
    if layer.closes:
        names.append(layer.block)
    if layer.gate is not None:
        names += [f"{layer.gate}.pool", f"{layer.gate}.gate"]
    return names if layer.pool is None else [*names, layer.pool]
