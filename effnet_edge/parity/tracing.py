"""What a model must show so that it can be compared layer by layer.

Tensors are known by name. The names of an export are the paths of the PyTorch modules, and they
survive the conversion to ONNX and to OpenVINO; the output is called "logits" everywhere, also where
it is features, and the normalized pixels "preprocess".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

Activations: TypeAlias = "dict[str, NDArray[np.float32]]"

LOGITS = "logits"
PREPROCESSED = "preprocess"

SIMULATED = " (simulated)"
"""After the precision of a model that another engine is to compute in."""

_QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear", "FakeQuantize"})


@dataclass(frozen=True)
class Kernel:
    """One step of execution: a node, or several nodes that the engine fused into one.

    Attributes:
        tensors: the names of what its nodes give, in order; the last one is what it really writes.
        operation: of the last node, e.g. "Conv"; with its padding where it has one.
        precision: what it computes in: "FP32", "BF16", "FP16" or "INT8".
    """

    tensors: tuple[str, ...]
    operation: str
    precision: str

    @property
    def quantizes(self) -> bool:
        """Whether it only goes to integers or comes back from them."""
        return self.operation in _QUANTIZERS


@dataclass(frozen=True)
class Grid:
    """The integers that a tensor is rounded to: everything outside `low` … `high` is clipped.

    Attributes:
        node: that rounds.
        tensor: that is rounded.
        low, high: the smallest and the largest value that there are integers for.
        levels: how many integers there are.
    """

    node: str
    tensor: str
    low: float
    high: float
    levels: int


@dataclass(frozen=True)
class Parameters:
    """What a convolution or a dense layer computes with.

    Attributes:
        weight: float32, output channels first, dequantized where it is stored as integers.
        bias: float32 (output channels,), or None.
        pads: top, left, bottom, right in pixels; None for a dense layer, and where another node
            before the convolution pads.
        strides: rows, columns; None for a dense layer.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    pads: tuple[int, ...] | None
    strides: tuple[int, ...] | None


class Traceable(Protocol):
    """A model whose inner tensors can be seen, and replaced."""

    @property
    def name(self) -> str:
        """What a person calls it."""

    @property
    def execution_precision(self) -> str:
        """What most of it computes in."""

    @property
    def stored_precision(self) -> str:
        """What its weights are stored in where that is not INT8: "FP32" or "FP16"."""

    def kernels(self) -> Sequence[Kernel]:
        """Its steps, in the order of execution."""

    def grids(self) -> Sequence[Grid]:
        """Where it rounds activations to integers."""

    def parameters(self, tensor: str) -> Parameters | None:
        """Of the convolution or dense layer that gives this tensor, where they can be seen."""

    def activations(self, batch: NDArray[np.uint8], names: Sequence[str]) -> Activations:
        """These tensors, the batch in front, for uint8 images (N, H, W, 3)."""

    def isolated(
        self,
        batch: NDArray[np.uint8],
        names: Sequence[str],
        given: Mapping[str, NDArray[np.generic]],
    ) -> Activations:
        """These tensors, where whoever reads a tensor in `given` reads the given value instead.

        Given the values that another model has for all of `names`, each result shows what the
        nodes between two of them do, free of what came before.
        """


def shared_tensors(reference: Traceable, candidate: Traceable) -> dict[str, Kernel]:
    """What both models have, in the candidate's order, with the candidate's kernel.

    Of a fused kernel only the last tensor counts that the reference has, too: to ask for one
    inside would undo the fusion. A dequantized tensor is no counterpart of a real one.
    """
    known = {name: kernel for kernel in reference.kernels() for name in kernel.tensors}
    shared = {}
    for kernel in candidate.kernels():
        counterparts = [
            name
            for name in kernel.tensors
            if name in known and known[name].quantizes == kernel.quantizes
        ]
        if counterparts:
            shared[counterparts[-1]] = kernel
    return shared


def pieces(length: int, least: int, most: int | None) -> Iterator[tuple[slice, int]]:
    """Cut a batch into what a model takes at a time: the part, and how many are missing from it.

    `least` and `most` are the fewest and most images that the model takes; None for any number.
    """
    step = most or max(length, 1)
    for start in range(0, length, step):
        used = min(step, length - start)
        yield slice(start, start + used), max(least - used, 0)
