"""Which graphs a bundle carries where the device builds the engine, and what is said of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from effnet_edge.parity.report.loss import divergence
from effnet_export.tuning.outcome import measured_ones

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from effnet_edge.bundle import Bundle, Manifest
    from effnet_edge.parity import ParityResult
    from effnet_edge.parity.measures.table import Measure
    from effnet_export.tuning.limits import Limits
    from effnet_export.tuning.outcome import Tried

MOST_IN_INT8 = 2
"""Of those in INT8 the ones that lose most: they leave least in 16 bit, and may be the fastest."""


@dataclass(frozen=True)
class Carried:
    """What came of all candidates, of which one at least could be made.

    Attributes:
        carried: those in the bundle, the one that loses least first; none where none is within the
            limits.
        bundle: written; with one graph alone it is as an export makes it.
        judged_on: which pictures, in words.
        seconds: that all of it took.
    """

    tried: list[Tried]
    limits: Limits
    carried: list[Tried]
    bundle: Bundle | None
    judged_on: str
    seconds: float

    @cached_property
    def judged(self) -> list[tuple[Tried, ParityResult]]:
        """Those that could be made, with what they lose."""
        return [(each, each.loss) for each in self.tried if each.loss is not None]

    @property
    def measures(self) -> list[Measure]:
        """Those that tell the losses in a table."""
        return measured_ones(self.judged[0][1])

    def place(self, tried: Tried) -> str:
        """In words, what became of it."""
        if tried.loss is None:
            return "refused by a gate" if tried.refused else "failed"
        if tried in self.carried:
            return "in the bundle"
        if failures := self.limits.loss_failures(tried.loss):
            return f"over a limit: {failures[0]}"
        return "left out: another may be faster"

    @cached_property
    def why_none(self) -> str:
        """In one line, why the bundle would carry none, and what comes nearest."""
        nearest, loss = min(self.judged, key=lambda each: self.limits.excess(each[1], 0.0))
        return self.limits.told_missed(loss, nearest.name, self.limits.loss_failures(loss))

    def to_dict(self) -> dict[str, Any]:
        """JSON values; numbers as `effnet_edge.nonfinite` says."""
        return {
            "bundle": self.bundle and str(self.bundle.path),
            "carried": [each.name for each in self.carried],
            "limits": dict(self.limits.loss.limits),
            "judged_on": self.judged_on,
            "candidates": [self._row(each) for each in self.tried],
            "seconds": round(self.seconds, 3),
        }

    def _row(self, tried: Tried) -> dict[str, object]:
        return {
            "name": tried.name,
            "made_of": tried.made_of,
            "bytes": tried.bytes,
            "problem": tried.problem,
            "refused_by_gate": tried.refused,
            "breaks": self.limits.loss_failures(tried.loss) if tried.loss else [tried.problem],
            "loss": tried.loss and tried.loss.to_dict(),
        }


def to_carry(
    tried: Sequence[Tried], limits: Limits, manifests: Mapping[str, Manifest]
) -> list[Tried]:
    """Those within the limits that may be the fastest on a device, the least lossy first.

    In INT8 the `MOST_IN_INT8` that lose most, and one in floating point: that in FP32 only where
    there is none in FP16. Of equal graphs it is the first, and never one whose loss is no number.
    """
    within = {
        each.name: divergence(each.loss)
        for each in tried
        if each.loss is not None and not limits.loss_failures(each.loss)
    }
    by_name = {each.name: each for each in tried}
    finite = [name for name, loss in within.items() if math.isfinite(loss)]
    found = sorted(finite, key=lambda name: (within[name], name))
    of: dict[str, list[str]] = {"fp32": [], "fp16": [], "int8": []}
    seen = set()
    for name in found:
        manifest = manifests[name]
        graph = manifest.files[manifest.model].sha256
        if graph not in seen:
            of[manifest.precision].append(name)
        seen.add(graph)
    names = [*(of["fp16"] or of["fp32"])[:1], *of["int8"][-MOST_IN_INT8:]]
    return [by_name[name] for name in found if name in names]
