"""The parity gate after each stage: a stage that changes the answer stops the export."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from effnet_edge.bundle import Measured, StageParity
from effnet_edge.errors import GateError
from effnet_edge.parity import EXACT_GATES, Comparison, Gate
from effnet_edge.parity.batch_sizes import OWN_ANSWERS_DB, BatchSizeCheck
from effnet_edge.parity.inside.bisection import find_faults
from effnet_edge.parity.measures.spread import tells_apart
from effnet_edge.parity.measures.table import measures_of
from effnet_edge.pictures.reading import read_batches, told_source

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity import ParityResult, Verdict
    from effnet_edge.parity.batch_sizes import AtBatchSize
    from effnet_edge.parity.comparison import Classifier
    from effnet_edge.parity.inside.tracing import Traceable
    from effnet_edge.parity.measures.gates import Check
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Pictures

# An engine that computes in 16 bit keeps 8 (BF16) or 11 (FP16) significant bits an operation. On
# the bundled B0, BF16 is at 30 dB; a wrong padding, the least fault known, is at 14 dB. Values of a
# regression are held to the same decibels, but of their spread: 20 dB are a tenth.
HALF_PRECISION: dict[OutputKind, Gate] = {
    "single-label": Gate(min_sqnr_db=20.0, max_kl=0.05),
    "multi-label": Gate(min_sqnr_db=20.0, max_kl=0.005),
    "regression": Gate(min_sqnr_db=20.0, max_nrmse=0.1),
    "features": Gate(min_sqnr_db=20.0),
}

# The Q/DQ graph without its activations' roundings against the network with the same weights:
# only the order of summation differs.
ROUNDED_WEIGHTS: dict[OutputKind, Gate] = {
    "single-label": Gate(min_sqnr_db=50.0),
    "multi-label": Gate(min_sqnr_db=50.0),
    "regression": Gate(min_sqnr_db=50.0, max_nrmse=0.003),
    "features": Gate(min_sqnr_db=50.0),
}

# The INT8 engine against the FP32 network. Sound exports of trained networks are at 18 dB and 0.016
# nats or better, what other tools give starts at 0.09 nats, and weights that overflow are at 10 dB:
# docs/figures.md, "The INT8 gate". 6 dB are left to processors and networks of other kinds.
INT8: dict[OutputKind, Gate] = {
    "single-label": Gate(min_sqnr_db=12.0, max_kl=0.05),
    "multi-label": Gate(min_sqnr_db=12.0, max_kl=0.0125),
    "regression": Gate(min_sqnr_db=12.0, max_nrmse=0.25),
    "features": Gate(min_sqnr_db=12.0),
}

# What fitted hard-swishes may lose where nothing is rounded to integers. B0 with the usual share of
# them is at 20 dB and 0.016 nats on pictures of another kind than those of the fit, and with all
# SiLUs replaced at 11 dB and 0.08 nats: docs/figures.md, "Fitted hard-swishes". A wrong padding, at
# 14 dB, has to stay outside.
FITTED_ACTIVATIONS: dict[OutputKind, Gate] = {
    "single-label": Gate(min_sqnr_db=16.0, max_kl=0.05),
    "multi-label": Gate(min_sqnr_db=16.0, max_kl=0.0125),
    "regression": Gate(min_sqnr_db=16.0, max_nrmse=0.15),
    "features": Gate(min_sqnr_db=16.0),
}

# What INT8 with hard-swishes may lose, simulated, where nobody asked for them: 6 dB less than INT8
# may. B0 with weights of 7 bits is at 21 dB and 0.011 nats on pictures of another kind than those
# of the calibration.
FAST_BY_DEFAULT: dict[OutputKind, Gate] = {
    "single-label": Gate(min_sqnr_db=18.0, max_kl=0.02),
    "multi-label": Gate(min_sqnr_db=18.0, max_kl=0.005),
    "regression": Gate(min_sqnr_db=18.0, max_nrmse=0.125),
    "features": Gate(min_sqnr_db=18.0),
}

# How many times the noise of the simulation the Q/DQ graph may have, where chance is ruled out by
# this many standard errors, and at most.
NOISE_MARGIN = 2.0
STANDARD_ERRORS = 2.0
LARGEST_MARGIN = 4.0

# A share of the spread: from there on, one answer to all pictures is as close to the reference as
# the candidate is. Sound exports are at 0.26 or below: docs/figures.md, "The INT8 gate".
NO_BETTER_THAN_CONSTANT = 1.0

BATCH_SIZE = 8

# The model before a stage and the one after it, opened to be looked into.
Inside: TypeAlias = "Callable[[], tuple[Traceable, Traceable]]"


def simulation_gate(loss: ParityResult, uncertainty: float = 0.0) -> Gate:
    """What the Q/DQ graph must hold against the network in floating point.

    It loses what the simulation loses that its table was made with, up to chance: they differ
    where a value lies on the edge between two integers, and every such step moves what is behind
    it. From each other they may be farther than from the network.

    Args:
        loss: the simulation against the network in floating point.
        uncertainty: of the ratio of their noise; see `ratio_uncertainty`.
    """
    gate = HALF_PRECISION[loss.output]
    margin = min(NOISE_MARGIN * math.exp(STANDARD_ERRORS * uncertainty), LARGEST_MARGIN)
    if loss.sqnr_db is not None and math.isfinite(loss.sqnr_db):
        gate = gate.but(min_sqnr_db=round(loss.sqnr_db - 10 * math.log10(margin), 1))
    if gate.max_kl is not None and loss.kl is not None:
        gate = gate.but(max_kl=max(gate.max_kl, margin * loss.kl))
    if gate.max_nrmse is not None and loss.nrmse is not None:
        gate = gate.but(max_nrmse=max(gate.max_nrmse, math.sqrt(margin) * loss.nrmse))
    return gate


def ratio_uncertainty(noise: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The standard error of the logarithm of sum(noise) / sum(other), paired by picture.

    By the delta method (Cochran 1977, "Sampling techniques", section 6.4): that of the mean of
    noise / mean(noise) - other / mean(other).

    Args:
        noise, other: powers, one a picture, float64 (N,).

    Returns:
        0 or more; 0 for a single picture, or where one of the sums is zero or not finite.
    """
    if len(noise) < 2 or not all(0 < each.sum() < math.inf for each in (noise, other)):
        return 0.0
    differences = noise / noise.mean() - other / other.mean()
    return float(differences.std(ddof=1) / math.sqrt(len(differences)))


class ParityGate:
    """Compares every stage with the PyTorch reference on the same pictures.

    Pictures and reference logits are kept, so that each stage costs only its own inference.

    Attributes:
        source: the pictures, in words.

    Raises:
        UsageError: none of the pictures can be read.
    """

    def __init__(
        self,
        reference: Classifier,
        pictures: Pictures,
        preprocessing: Preprocessing,
        output: OutputKind = "single-label",
    ) -> None:
        self._reference = reference
        self._output = output
        self._pictures = pictures
        self._preprocessing = preprocessing
        skipped: list[str] = []
        self._batches = [
            (pixels, reference.infer(pixels))
            for pixels, _ in read_batches(pictures, preprocessing, BATCH_SIZE, skipped)
        ]
        self.source = told_source(pictures.source, skipped)
        pixels = np.concatenate([pixels for pixels, _ in self._batches])
        self._pictures_tell = tells_apart(pixels)
        self._sizes = BatchSizeCheck(
            pixels,
            np.concatenate([logits for _, logits in self._batches]),
            output,
        )

    def against(self, reference: Classifier) -> ParityGate:
        """The same pictures with another reference."""
        return ParityGate(reference, self._pictures, self._preprocessing, self._output)

    def check(
        self,
        stage: str,
        candidate: Classifier,
        gates: Mapping[OutputKind, Gate] = EXACT_GATES,
        *,
        before: Traceable | None = None,
        inside: Inside | None = None,
        rewritten: Collection[str] = (),
        sizes: Sequence[int] = (),
        own_answers_db: float = OWN_ANSWERS_DB["fp32"],
    ) -> StageParity:
        """Compare, and stop the export if the candidate is not the same model.

        Args:
            stage: the name of the step that made the candidate.
            gates: what it must hold, by the kind of output.
            before: what the step was given; the first node that differs from it is looked for.
            inside: gives both as models that show their tensors, where the candidate does not.
            rewritten: nodes that the step made different on purpose, which are not named.
            sizes: batch sizes at each of which it must hold the same.
            own_answers_db: how close its answers at these must be to one another; see
                `effnet_edge.parity.batch_sizes`.

        Raises:
            GateError: the candidate fails the gate; the text names the first wrong node.
        """
        result = self.loss(candidate)
        gate = gates[self._output]
        verdict = self._with_spread(gate, result).judge(result)
        failures = verdict.failures
        wrong = self._wrong_sizes(candidate, sizes, own_answers_db, gate)
        if failures and len(wrong) == len(sizes):
            wrong = []  # It is another model, whatever the batch size.
        failures += [each.failures[0] for each in wrong]
        if failures:
            pixels = self._sizes.pixels_at(wrong[0].size if wrong else 1)
            first, second = inside() if inside else (before, candidate)
            raise GateError(
                f"{stage} changed the model: {'; '.join(failures)}"
                f"{self._culprit(second, first, rewritten, gate, pixels)}"
            )
        return stage_parity(stage, result, verdict, sizes)

    def check_noise(
        self,
        stage: str,
        candidate: Classifier,
        simulated: Classifier,
        sizes: Sequence[int] = (),
    ) -> StageParity:
        """Stop the export if the candidate has more noise than its simulation, beyond chance.

        Raises:
            GateError: it has; see `simulation_gate`.
        """
        expected, found = self._answers(simulated), self._answers(candidate)
        uncertainty = ratio_uncertainty(self._noise(found), self._noise(expected))
        gate = simulation_gate(self._compared(simulated, expected), uncertainty)
        result = self._compared(candidate, found)
        verdict = gate.judge(result)
        wrong = self._wrong_sizes(candidate, sizes, OWN_ANSWERS_DB["int8"], gate)
        failures = verdict.failures + [each.failures[0] for each in wrong]
        if failures:
            raise GateError(f"{stage} changed the model: {'; '.join(failures)}")
        return stage_parity(stage, result, verdict, sizes)

    def loss(self, candidate: Classifier) -> ParityResult:
        """How far the candidate is from the reference, whatever is allowed."""
        return self._compared(candidate, self._answers(candidate))

    def _with_spread(self, gate: Gate, result: ParityResult) -> Gate:
        """The gate, for classes with a limit on the error next to their spread.

        Not where all answers are the same, as answers that are alike may be sure; nor where the
        pictures are alike, as then the answers may be no further apart than rounding puts them.
        """
        if not self._pictures_tell or result.agreement in (None, 1.0):
            return gate
        return gate.but(max_nrmse=NO_BETTER_THAN_CONSTANT)

    def _wrong_sizes(
        self, candidate: Classifier, sizes: Sequence[int], own_answers_db: float, gate: Gate
    ) -> list[AtBatchSize]:
        found = self._sizes.run(candidate, sizes, own_answers_db, gate)
        return [each for each in found if each.failures]

    def _answers(self, candidate: Classifier) -> list[NDArray[np.float32]]:
        return [candidate.infer(pixels) for pixels, _ in self._batches]

    def _noise(self, answers: list[NDArray[np.float32]]) -> NDArray[np.float64]:
        """The power of the distance from the reference, one a picture."""
        return np.concatenate(
            [
                np.square(answer.astype(np.float64) - logits).sum(1)
                for answer, (_, logits) in zip(answers, self._batches, strict=True)
            ]
        )

    def _compared(self, candidate: Classifier, answers: list[NDArray[np.float32]]) -> ParityResult:
        comparison = Comparison(
            self._reference.name,
            candidate.name,
            self._reference.execution_precision,
            candidate.execution_precision,
            self._output,
        )
        for answer, (_, logits) in zip(answers, self._batches, strict=True):
            comparison.update(logits, answer)
        return comparison.result(self.source)

    def _culprit(
        self,
        candidate: Classifier | Traceable,
        before: Traceable | None,
        rewritten: Collection[str],
        gate: Gate,
        pixels: NDArray[np.uint8],
    ) -> str:
        if before is None or not hasattr(candidate, "activations"):
            return ""
        faults = [
            fault
            for fault in find_faults(before, cast("Traceable", candidate), pixels).faults
            if fault.node not in rewritten
        ]
        # A node that holds by itself what all of them must is not what broke the model.
        limit = math.inf if gate.min_sqnr_db is None else gate.min_sqnr_db
        culprits = [fault for fault in faults if not fault.sqnr_db >= limit] or faults
        return f"; first wrong node: {culprits[0]}" if culprits else ""


def stage_parity(
    stage: str, result: ParityResult, verdict: Verdict, sizes: Sequence[int] = ()
) -> StageParity:
    """What a manifest says of a stage; `sizes` as in `StageParity`."""
    kept = [measure.key for measure in measures_of(result.output) if measure.kept]
    values = {key: value for key in kept if (value := result.value(key)) is not None}
    return StageParity(
        stage=stage,
        reference=result.reference,
        candidate=result.candidate,
        execution_precision=result.candidate_precision,
        images=result.images,
        batch_sizes=tuple(sizes),
        measures={key: Measured(value) for key, value in values.items()}
        | {
            check.measure.key: _held(check, check.value)
            for check in verdict.checks
            if check.value is not None
        },
    )


def _held(check: Check, value: float) -> Measured:
    if check.bounds.at_least:
        return Measured(value, at_least=check.limit)
    return Measured(value, at_most=check.limit)
