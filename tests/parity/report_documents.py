"""Documents of comparisons for tests of the report: real ones of made-up models, in every state."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from effnet_edge.parity import Comparison, Gate
from effnet_edge.parity.inside.layers import LayerError
from effnet_edge.parity.measures.answers import Answers, FlipCollector
from effnet_edge.parity.measures.label_changes import LabelChanges
from effnet_edge.parity.report import build_document
from effnet_edge.parity.report.costs import Baseline, Cost
from effnet_edge.parity.report.document import Circumstances, Examined
from effnet_edge.parity.study import Study

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.report.document import Document

CLASSES = 4
SOURCE = "60 of the 200 pictures in photos (seed 0)"
TIMED = Cost(5_000_000, 1.5, (1.4, 1.6), 0.002)
FP32 = Cost(20_000_000, 1.0, (1.0, 1.0), 0.003)


def logits(classes: Sequence[int]) -> np.ndarray:
    """Sure answers."""
    return 6 * np.eye(CLASSES, dtype=np.float32)[list(classes)]


def examined(
    name: str,
    *,
    images: int = 60,
    lost: int = 0,
    gained: int = 0,
    noise: float = 0.01,
    broken: int = 0,
    labelled: bool = True,
    output: OutputKind = "single-label",
    gate: Gate | None = None,
    layers: Sequence[LayerError] | None = None,
    cost: Cost | None = None,
    skipped: Sequence[str] = (),
) -> Examined:
    """A candidate of which just so many answers changed, for the worse and for the better."""
    labels = np.arange(images) % CLASSES
    wrong = (labels + 1) % CLASSES
    before, after = labels.copy(), labels.copy()
    after[:lost] = wrong[:lost]
    before[images - gained :] = wrong[images - gained :]
    reference, candidate = logits(before), logits(after)
    random = np.random.default_rng(0)
    candidate += random.normal(0, noise, candidate.shape).astype(np.float32)
    if output == "multi-label":
        reference, candidate = reference - 3, candidate - 3
    candidate[:broken] = np.nan
    comparison = Comparison("torch", name, "FP32", "INT8", output)
    truth = labels if labelled and output == "single-label" else None
    comparison.update(reference, candidate, truth)
    result = comparison.result(SOURCE, tuple(skipped))
    answers = changes = None
    flips = FlipCollector()
    if output == "single-label":
        answers = Answers.of(reference, candidate, truth)
        flips.add(np.zeros((images, 8, 8, 3), np.uint8), answers)
    elif output == "multi-label":
        changes = LabelChanges.of(reference, candidate)
    study = Study(result, answers, changes, flips.flips())
    verdict = (gate or Gate()).judge(result)
    return Examined(study, verdict, list(layers) if layers else None, cost=cost or Cost())


def document_of(
    *candidates: Examined, gate: Gate | None = None, baseline: Baseline | None = None
) -> Document:
    """All that was found of them; the gate is only told."""
    output = candidates[0].study.result.output
    told = (gate or Gate()).describe(output)
    labels = [f"class <{index}>" for index in range(CLASSES)]
    return build_document(candidates, Circumstances("effnet-edge parity", told, labels, baseline))


def single(gate: Gate | None = None, **changes: object) -> Document:
    """The document of one candidate called b0-int8."""
    return document_of(examined("b0-int8", gate=gate, **changes), gate=gate)  # type: ignore[arg-type]


def timed(**ratios: float) -> Document:
    """Candidates by name with the share of the baseline's time that they take; fp32 is it."""
    every = {"fp32": FP32} | {
        name: replace(TIMED, times_as_fast=1 / share) for name, share in ratios.items()
    }
    return with_costs(every)


def with_costs(costs: Mapping[str, Cost]) -> Document:
    """Candidates that lose one picture more each."""
    candidates = [
        examined(name, lost=lost, cost=cost) for lost, (name, cost) in enumerate(costs.items())
    ]
    first = next(iter(costs.items()))
    return document_of(*candidates, baseline=Baseline(*first, rounds=50))


def layer(name: str, total: float, added: float, *, precision: str = "INT8") -> LayerError:
    """A tensor with these SQNRs, in decibels."""
    return LayerError(name, "Conv", precision, total, added, 40.0, 0.99, 0.5, 8, 0, ())
