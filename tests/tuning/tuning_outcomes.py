"""Made-up outcomes of candidates: losses and times of just these sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.choosing.frontier import Measured
from effnet_edge.parity import Comparison
from effnet_edge.parity.report.loss import divergence
from effnet_export.tuning.limits import Limits
from effnet_export.tuning.outcome import Tried, Tuned, choose

if TYPE_CHECKING:
    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity import ParityResult

IMAGES, CLASSES = 40, 4


def lost(noise: float, *, output: OutputKind = "single-label", wrong: int = 0) -> ParityResult:
    """What noise of that deviation costs, where so many answers turned wrong."""
    random = np.random.default_rng(0)
    labels = np.arange(IMAGES) % CLASSES
    logits = 6 * np.eye(CLASSES)[labels] + random.normal(size=(IMAGES, CLASSES))
    found = logits + noise * random.normal(size=logits.shape)
    found[:wrong] = np.roll(found[:wrong], 1, axis=1)
    comparison = Comparison("torch", "candidate", "FP32", "INT8", output)
    comparison.update(logits, found, labels if output == "single-label" else None)
    return comparison.result("40 pictures held out")


def tried(name: str, noise: float, milliseconds: float, **options: object) -> Tried:
    """One that was measured."""
    loss = lost(noise, **options)  # type: ignore[arg-type]
    seconds = (milliseconds / 1e3,) * 3
    return Tried(name, f"{name} is it", 1000, loss, Measured(name, divergence(loss), seconds))


def tuned(candidates: list[Tried], limits: Limits | None = None) -> Tuned:
    """As a tune ends, but for the bundle."""
    limits = limits or Limits()
    chosen = choose(candidates, limits)
    return Tuned(candidates, limits, chosen, None, "40 pictures held out", 1.0)
