"""The first node at fault, and what is wrong with it.

Every node of the candidate computes from the reference's values, all in one run, so that each one
is judged by itself: an error upstream neither hides one further down nor blames it. What a node
may add depends on the precision that it computes in. Two models with grids compute from values
that every engine rounds in the same way: see `effnet_edge.parity.inside.halfway`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge import nonfinite
from effnet_edge.parity.inside.diagnosis import diagnose
from effnet_edge.parity.inside.explanation import Diagnosis
from effnet_edge.parity.inside.grids import compare_grids, counterparts, saturation
from effnet_edge.parity.inside.halfway import away_from_halfway
from effnet_edge.parity.inside.tracing import (
    SIMULATED,
    Activations,
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

# An INT8 engine against the same integers elsewhere: what is halfway within one of its kernels may
# go either way.
_SAME_GRID_DB = 25.0

# And what it computes in FP32, against a model that rounds nothing: integers may still be what goes
# in. LiteRT's classifier reads rounded means, and on B0 and photos gave 23.
_AMONG_INTEGERS_DB = 15.0


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
    judged = _judged_tensors(reference, candidate)
    if not judged:
        return Findings((), 0)
    search = _Search(reference, candidate, batch, judged)
    return Findings(tuple(search.faults()), len(judged))


def _judged_tensors(reference: Traceable, candidate: Traceable) -> dict[str, Kernel]:
    """What both models have, with the candidate's kernel.

    Where the candidate does not compute in integers, these are also the tensors that both round
    within a kernel: to look at them changes nothing of what it computes, and only what is looked
    at can be moved away from halfway.
    """
    shared = shared_tensors(reference, candidate)
    running = candidate.execution_precision.removesuffix(SIMULATED)
    if running == "INT8":
        return shared
    rounded = {grid.tensor for grid in candidate.grids()}
    rounded &= {grid.tensor for grid in reference.grids()}
    inside = {
        name: replace(kernel, tensors=(name,), precision=running)
        for kernel in reference.kernels()
        for name in kernel.tensors
        if name in rounded
    }
    return inside | shared


class _Search:
    def __init__(
        self,
        reference: Traceable,
        candidate: Traceable,
        batch: NDArray[np.uint8],
        judged: Mapping[str, Kernel],
    ) -> None:
        self._reference = reference
        self._candidate = candidate
        self._batch = batch
        self._judged = judged
        self._reference_kernels = {
            name: kernel for kernel in reference.kernels() for name in kernel.tensors
        }
        self._reference_order = list(self._reference_kernels)
        self._candidate_names = {name for kernel in candidate.kernels() for name in kernel.tensors}
        self._grids = candidate.grids()
        self._reference_grids = reference.grids()
        self._given, self._expected = self._reference_values()

    def _reference_values(self) -> tuple[Activations, Activations]:
        """What the nodes of both models compute from, and what the reference's then give."""
        names = list(self._judged)
        values = self._reference.activations(self._batch, names)
        if not (self._grids and self._reference_grids):
            return values, values
        given = away_from_halfway(values, [*self._grids, *self._reference_grids])
        return given, self._reference.activations(self._batch, names, given)

    def faults(self) -> list[Fault]:
        """Those of all nodes, in the reference's order."""
        alone = self._candidate.activations(self._batch, list(self._judged), self._given)
        found = []
        for name in self._reference_order:
            fault = self._judge_grids(name)
            if fault is None and name in self._judged:
                fault = self._judge(name, self._judged[name], alone[name])
            if fault is not None:
                found.append(fault)
        return found

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
        known = self._candidate_names | self._judged.keys()
        while position > 0 and self._reference_order[position - 1] not in known:
            position -= 1
        if position > last or position == 0:
            return None
        missing, before = self._reference_order[last], self._reference_order[position - 1]
        value = self._reference.activations(self._batch, [missing], self._given)[missing]
        if before not in self._given or value.shape != self._given[before].shape:
            return None
        given = {**self._given, before: value}
        found = self._candidate.activations(self._batch, list(self._judged), given)[name]
        if sqnr_db(self._expected[name], found) < self._floor(name, self._judged[name]):
            return None
        operation = self._reference_kernels[missing].operation
        diagnosis = Diagnosis(
            "missing", f"{self._candidate.name} leaves it out: {name} reads {before} instead"
        )
        return self._fault(missing, operation, diagnosis, math.nan)

    def _judge_grids(self, name: str) -> Fault | None:
        """Whether a tensor is rounded to other integers than it should be."""
        for grid in (each for each in self._grids if each.tensor == name):
            rights = counterparts(grid, self._reference_grids)
            node, told = grid.node, None
            if rights:
                node, told = rights[0].node, compare_grids(rights, grid)
            elif name in self._expected:
                told = saturation(grid, self._expected[name])
            if told is not None:
                return self._fault(node, "QuantizeLinear", told, math.nan)
        return None

    @staticmethod
    def _fault(node: str, operation: str, diagnosis: Diagnosis, decibels: float) -> Fault:
        return Fault(node, operation, diagnosis.kind, diagnosis.text, decibels)
