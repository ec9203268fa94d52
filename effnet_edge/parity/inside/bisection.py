"""The first node at fault, and what is wrong with it.

Every node of the candidate computes from the reference's values, all in one run, so that each one
is judged by itself: an error upstream neither hides one further down nor blames it. What a node
may add depends on the precision that it computes in.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge import nonfinite
from effnet_edge.parity.inside.diagnosis import diagnose
from effnet_edge.parity.inside.explanation import Diagnosis
from effnet_edge.parity.inside.tracing import (
    SIMULATED,
    Activations,
    Grid,
    Kernel,
    Traceable,
    shared_tensors,
)
from effnet_edge.parity.measures.metrics import sqnr_db

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

# What a node by itself must hold, in decibels. Measured on B0 and photos: FP32 114 dB and more,
# BF16 39. FP16 has 3 bits more than BF16.
_FLOOR_DB = {"FP32": 90.0, "FP16": 50.0, "BF16": 30.0, "INT8": 6.0}

# An INT8 engine against the same integers elsewhere: a value halfway may go either way.
_SAME_GRID_DB = 25.0

# And what it computes in FP32, against a model that rounds nothing: integers may still be what goes
# in. LiteRT's classifier reads rounded means, and on B0 and photos gave 23.
_AMONG_INTEGERS_DB = 15.0

# A grid may leave out a few outliers: calibration chooses it for the least error, not for the
# largest value.
_CLIPPED_DB = 15.0


@dataclass(frozen=True)
class Fault:
    """A node that computes something else than the reference does.

    Attributes:
        node: the name of the node's output: for exported models, the path of the PyTorch module.
        operation: of the node, with its padding if it has one.
        kind: of the fault; see `Diagnosis`.
        problem: what is wrong with it, in words.
        sqnr_db: of its output on the reference's inputs; NaN where that cannot be said.
    """

    node: str
    operation: str
    kind: str
    problem: str
    sqnr_db: float

    def __str__(self) -> str:
        return f"{self.node} ({self.operation}): {self.problem}"

    def to_dict(self) -> dict[str, object]:
        """JSON values only; numbers as `effnet_edge.nonfinite` says."""
        fields: dict[str, object] = nonfinite.encode(asdict(self))
        return fields


@dataclass(frozen=True)
class Findings:
    """All nodes at fault in the order of execution, and how many were looked at."""

    faults: tuple[Fault, ...]
    nodes: int

    @property
    def first(self) -> Fault | None:
        """The first node at fault."""
        return self.faults[0] if self.faults else None


def find_faults(reference: Traceable, candidate: Traceable, batch: NDArray[np.uint8]) -> Findings:
    """Judge every node of the candidate that the reference has, too.

    Args:
        batch: uint8 images (N, H, W, 3); one or two photos are enough.

    Raises:
        BackendError: a model fails.
    """
    shared = shared_tensors(reference, candidate)
    if not shared:
        return Findings((), 0)
    expected = reference.activations(batch, list(shared))
    search = _Search(reference, candidate, batch, shared, expected)
    return Findings(tuple(search.faults()), len(shared))


class _Search:
    def __init__(
        self,
        reference: Traceable,
        candidate: Traceable,
        batch: NDArray[np.uint8],
        shared: Mapping[str, Kernel],
        expected: Activations,
    ) -> None:
        self._reference = reference
        self._candidate = candidate
        self._batch = batch
        self._shared = shared
        self._expected = expected
        self._reference_kernels = {
            name: kernel for kernel in reference.kernels() for name in kernel.tensors
        }
        self._reference_order = list(self._reference_kernels)
        self._candidate_names = {name for kernel in candidate.kernels() for name in kernel.tensors}
        self._grids = candidate.grids()
        self._reference_grids = {grid.node: grid for grid in reference.grids()}

    def faults(self) -> list[Fault]:
        alone = self._candidate.activations(self._batch, list(self._shared), self._expected)
        judged = (
            self._judge_grid(name) or self._judge(name, kernel, alone[name])
            for name, kernel in self._shared.items()
        )
        return [fault for fault in judged if fault is not None]

    def _judge(self, name: str, kernel: Kernel, found: NDArray[np.float32]) -> Fault | None:
        expected = self._expected[name]
        decibels = sqnr_db(expected, found) if expected.shape == found.shape else math.nan
        if decibels >= self._floor(name, kernel):  # a NaN is not
            return None
        missing = self._missing_before(name)
        if missing is not None:
            return missing
        diagnosis = diagnose(
            expected.astype(np.float32),
            found.astype(np.float32),
            self._reference.parameters(name),
            self._candidate.parameters(name),
            integer_weights=kernel.precision == "INT8",
        )
        return self._fault(name, kernel.operation, diagnosis, decibels)

    def _floor(self, name: str, kernel: Kernel) -> float:
        """The decibels that the node must hold by itself."""
        running = self._candidate.execution_precision.removesuffix(SIMULATED)
        if kernel.precision == "INT8" and self._reference_kernels[name].precision != "INT8":
            return _FLOOR_DB["INT8"]
        if running == "INT8":
            return _SAME_GRID_DB if self._reference_grids else _AMONG_INTEGERS_DB
        return min(
            _FLOOR_DB[each]
            for each in (running, self._candidate.stored_precision)
            if each in _FLOOR_DB
        )

    def _missing_before(self, name: str) -> Fault | None:
        """What the candidate leaves out just before a node, if that explains the node's output."""
        position = self._reference_order.index(name)
        last = position - 1
        while position > 0 and self._reference_order[position - 1] not in self._candidate_names:
            position -= 1
        if position > last or position == 0:
            return None
        missing, before = self._reference_order[last], self._reference_order[position - 1]
        value = self._reference.activations(self._batch, [missing])[missing]
        if before not in self._expected or value.shape != self._expected[before].shape:
            return None
        given = {**self._expected, before: value}
        found = self._candidate.activations(self._batch, list(self._shared), given)[name]
        if sqnr_db(self._expected[name], found) < self._floor(name, self._shared[name]):
            return None
        operation = self._reference_kernels[missing].operation
        diagnosis = Diagnosis(
            "missing", f"{self._candidate.name} leaves it out: {name} reads {before} instead"
        )
        return self._fault(missing, operation, diagnosis, math.nan)

    def _judge_grid(self, name: str) -> Fault | None:
        """Whether a tensor is rounded to other integers than it should be."""
        for grid in (each for each in self._grids if each.tensor == name):
            right = self._reference_grids.get(grid.node)
            told = _compare_grids(right, grid) if right else _saturation(grid, self._expected[name])
            if told is not None:
                return self._fault(grid.node, "QuantizeLinear", told, math.nan)
        return None

    @staticmethod
    def _fault(node: str, operation: str, diagnosis: Diagnosis, decibels: float) -> Fault:
        return Fault(node, operation, diagnosis.kind, diagnosis.text, decibels)


def _compare_grids(right: Grid, grid: Grid) -> Diagnosis | None:
    right_step, step = ((each.high - each.low) / (each.levels - 1) for each in (right, grid))
    if not math.isclose(step, right_step, rel_tol=1e-4):
        return Diagnosis(
            "scale",
            f"its scale is {step:.4g} and should be {right_step:.4g} "
            f"({step / right_step:.3g} times that)",
        )
    shift = round((right.low - grid.low) / step)
    if shift:
        return Diagnosis("zero point", f"its zero point is off by {shift} of {grid.levels} levels")
    return None


def _saturation(grid: Grid, values: NDArray[np.float32]) -> Diagnosis | None:
    """Without a right grid to compare with: a grid must neither cut off nor dwarf the values."""
    clipped = np.clip(values, grid.low, grid.high)
    low, high = float(values.min()), float(values.max())
    if sqnr_db(values, clipped) < _CLIPPED_DB:
        share = float(np.mean((values < grid.low) | (values > grid.high)))
        return Diagnosis(
            "saturation",
            f"it clips {100 * share:.2g} % of the values to {grid.low:.4g} … {grid.high:.4g}; "
            f"they reach from {low:.4g} to {high:.4g}",
        )
    return None
