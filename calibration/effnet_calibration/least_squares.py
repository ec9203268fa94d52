"""The change of a convolution's weights with the least error of its output, by least squares.

How far it goes is decided by pictures that it was not calculated from.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from effnet_edge.model.network import PaddedConv2d

SAMPLES = 30_000
SAMPLES_OF_A_KERNEL = 10_000
"""Output pixels, of all pictures together. A depthwise kernel has few weights to tell about."""

LEAST_SAMPLES = 40
"""For each weight of an output. With fewer, other pictures were always served worse, or by less
than 1 %."""

FOLDS = 2
RIDGES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""Of each weight's own energy: what holds it where it was. From the strongest on, until other
pictures are served worse."""

WORTH = 0.99
"""Of the error before, on other pictures: what leaves more is not worth its place in a table."""

NEGLIGIBLE = 1e-9
"""Of the mean energy, added to that of every weight, as a channel may be 0 throughout."""


class Change(NamedTuple):
    """What is added to a layer's weights, shaped as they are, and to its biases (O,); float32."""

    weights: Tensor
    biases: Tensor


class LeastSquares:
    """The change of one convolution, from what it reads and what its output lacks.

    Args:
        module: the layer as it is.
        pictures: how many there will be, of all batches.
        pixels: of its output for one picture.
    """

    def __init__(self, module: PaddedConv2d, pictures: int, pixels: int) -> None:
        self._module = module
        self._pixels = pixels
        self._depthwise = module.groups > 1
        wanted = SAMPLES_OF_A_KERNEL if self._depthwise else SAMPLES
        self._samples = max(1, min(pixels, wanted // pictures))
        self._folds: list[_Normal | None] = [None] * FOLDS
        unknowns = module.weight[0].numel()
        self._enough = self._samples * pictures >= LEAST_SAMPLES * unknowns

    def places(self, chance: torch.Generator) -> Tensor:
        """Which of an output's pixels to look at, row by row: int64 (S,)."""
        return torch.randperm(self._pixels, generator=chance)[: self._samples]

    def offer(self, inputs: Tensor, at: Tensor, targets: Tensor) -> None:
        """See a batch.

        Args:
            inputs: what the layer reads, float32 (N, C, H, W).
            at: of `places`.
            targets: what it should give there, float32 (N, O, S).
        """
        read = self._patches(inputs, at)
        for fold in range(FOLDS):
            if len(targets) > fold:
                self._add(fold, read[fold::FOLDS], targets[fold::FOLDS])

    def change(self) -> Change | None:
        """What serves other pictures best; None where that is the layer as it is."""
        first, second = self._folds
        if first is None or second is None or not self._enough:
            return None
        whole = first + second
        best, before = torch.zeros_like(whole.products), first.energies + second.energies
        least = before
        for ridge in RIDGES:
            loss = second.loss(first.solved(ridge)) + first.loss(second.solved(ridge))
            better = loss < least
            if not bool(better.any()):
                break
            best = torch.where(better[:, None, None], whole.solved(ridge), best)
            least = torch.where(better, loss, least)
        return self._reshaped(best) if float(least.sum()) < WORTH * float(before.sum()) else None

    def mean_lacking(self, weights: Tensor) -> Tensor:
        """What the biases lack for the outputs' means to be right with these weights: float32 (O,).

        Args:
            weights: in the place of the layer's own, of the same shape.
        """
        first, *others = (each for each in self._folds if each is not None)
        whole = functools.reduce(operator.add, others, first)
        count = whole.moments[:, -1, -1]
        moved = self._rows(weights - self._module.weight)
        of_weights = (whole.moments[:, -1:, :-1] @ moved.double())[:, 0]
        lacking = (whole.products[:, -1] - of_weights) / count[:, None]
        return lacking.flatten().float()

    def _add(self, fold: int, read: Tensor, targets: Tensor) -> None:
        rows = self._by_group(read)
        rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
        bias = cast("Tensor", self._module.bias)
        own = self._rows(self._module.weight)
        own = torch.cat([own, bias.view(-1, 1, 1) if self._depthwise else bias.view(1, 1, -1)], 1)
        lacking = self._by_group(targets.unsqueeze(3)) - own.mT @ rows
        # Without enough to tell about weights, what the biases are known by is all that is summed.
        by = rows if self._enough else rows[:, -1:]
        normal = _Normal(
            (by @ rows.mT).double(),
            (by @ lacking.mT).double(),
            lacking.double().square().sum((1, 2)),
        )
        before = self._folds[fold]
        self._folds[fold] = normal if before is None else before + normal

    def _patches(self, inputs: Tensor, at: Tensor) -> Tensor:
        """What the kernel reads for these output pixels, float32 (N, C, S, K)."""
        module = self._module
        if module.explicit_padding is not None:
            inputs = functional.pad(inputs, module.explicit_padding)
        elif module.padding != (0, 0):
            up, left = cast("tuple[int, int]", module.padding)
            inputs = functional.pad(inputs, (left, left, up, up))
        (kernel, stride), width = (module.kernel_size[0], module.stride[0]), inputs.shape[3]
        columns = (width - kernel) // stride + 1
        corners = (at // columns * width + at % columns) * stride
        steps = torch.arange(kernel)
        inside = (steps[:, None] * width + steps).flatten()
        return inputs.flatten(2)[:, :, corners[:, None] + inside]

    def _by_group(self, values: Tensor) -> Tensor:
        """float32 (N, C, S, K) → (groups, rows of a group, N · S): every group has its own fit."""
        rows = values.permute(1, 3, 0, 2).flatten(2)
        return rows if self._depthwise else rows.flatten(0, 1).unsqueeze(0)

    def _rows(self, weights: Tensor) -> Tensor:
        """Weights as the layer has them → (groups, rows of a group, outputs of a group)."""
        flat = weights.flatten(1)
        return flat.unsqueeze(2) if self._depthwise else flat.mT.unsqueeze(0)

    def _reshaped(self, solved: Tensor) -> Change:
        rows = (solved.squeeze(2) if self._depthwise else solved.squeeze(0).mT).float()
        return Change(rows[:, :-1].reshape(self._module.weight.shape), rows[:, -1].contiguous())


class _Normal(NamedTuple):
    """Normal equations, a group of weights each: what is read (G, U, U), its products with what
    the output lacks (G, U, outputs), and the energy of that (G,); float64. Or the last row of both.
    """

    moments: Tensor
    products: Tensor
    energies: Tensor

    def __add__(self, other: object) -> _Normal:
        pairs = zip(self, cast("_Normal", other), strict=True)
        return _Normal(*(mine + its for mine, its in pairs))

    def solved(self, ridge: float) -> Tensor:
        """The change with the least error, float64 (G, U, outputs); the bias, the last, is free."""
        energy = self.moments.diagonal(dim1=1, dim2=2)
        least = NEGLIGIBLE * energy.mean(1, keepdim=True)
        held = ridge * energy + least
        held[:, -1] = least[:, 0]
        solved: Tensor = torch.linalg.solve(self.moments + torch.diag_embed(held), self.products)
        return solved

    def loss(self, change: Tensor) -> Tensor:
        """The energy of what the output lacks after that change, float64 (G,)."""
        linear = (change * self.products).sum((1, 2))
        return self.energies - 2 * linear + (change * (self.moments @ change)).sum((1, 2))
