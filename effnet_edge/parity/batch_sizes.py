"""The same pictures at every batch size that matters: an engine may be wrong at one of them only.

OpenVINO's INT8 kernels were, at a batch of 1, behind gates that all ran on batches of 8.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from effnet_edge import nonfinite
from effnet_edge.bundle import BatchRange
from effnet_edge.errors import BackendError
from effnet_edge.parity.comparison import Comparison, logits_of
from effnet_edge.parity.measures.few_pictures import broken_limits
from effnet_edge.parity.measures.metrics import decibels
from effnet_edge.parity.measures.probabilities import probabilities

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity.comparison import Classifier
    from effnet_edge.parity.measures.gates import Gate
    from effnet_edge.parity.measures.result import ParityResult
    from effnet_edge.progress import Steps

_USUAL_SIZE = 8

OWN_ANSWERS_DB = {"fp32": 60.0, "fp16": 20.0, "int8": 15.0}
"""Least SQNR of the answers at one batch size against those at another, by the precision of the
model, and of a picture's that is off by more than chance. Other sizes may take other kernels, which
round otherwise: INT8 engines were at 27 dB or more; a wrong padding, the least fault known, is at
14 dB, and nonsense near 0."""

_CHANCE_DEVIATIONS = 5.2
"""Of the normal distribution: one picture in ten million is further off."""

_SIZES_DIFFER = 2.0
"""How far above that at most other sizes the distance from the reference may be, as a ratio of
powers: of sound bundles it was the same at all of them, or a tenth more."""

_OFTEN_ABOVE_LIMIT_DB = 9.0
"""What is so far above the limit of `OWN_ANSWERS_DB` may be rounding at one size alone, whatever
the others are: INT8 at a batch of 1 was at 27 dB and more."""

_FEWEST_OTHERS = 2
"""Of one other size nobody knows which is the usual one."""

_PICTURES_DIFFER = 8.0
"""How far above that of most a picture's expected noise is, as a ratio of powers: on 16 photos the
thousand logits of the worst had 2.5 to 8.9 times the noise of the median (B0 in INT8)."""


@dataclass(frozen=True)
class AtBatchSize:
    """What came of one batch size.

    Attributes:
        size: images in one call.
        sqnr_db: of the answers to all pictures against the reference, each picture once; NaN where
            there were none.
        worst_sqnr_db: of the picture that differs most from the model's own answer at the size
            that is closest to the reference, as noise against the mean power of all pictures;
            infinite for equal answers.
        failures: one line each.
        least_sqnr_db: what the worst must be, unless it is no further off than chance goes; NaN
            where that is not known.
    """

    size: int
    sqnr_db: float
    worst_sqnr_db: float
    failures: tuple[str, ...]
    least_sqnr_db: float = math.nan

    def to_dict(self) -> dict[str, object]:
        """Give JSON values, numbers by the rule of `nonfinite`."""
        document: dict[str, object] = nonfinite.encode(asdict(self))
        return document


@dataclass(frozen=True)
class AtOnce:
    """What came of clients that each asked for one picture at the same time.

    Attributes:
        clients: how many.
        worst_sqnr_db: of the picture that differs most from the answer to it alone, as noise
            against the mean power of all pictures; NaN where there were no answers.
        least_sqnr_db: what it must be.
        failures: one line each.
    """

    clients: int
    worst_sqnr_db: float
    least_sqnr_db: float
    failures: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Give JSON values, numbers by the rule of `nonfinite`."""
        document: dict[str, object] = nonfinite.encode(asdict(self))
        return document


class AsksAtOnce(Protocol):
    """A model behind a server, which may put what several clients ask into one batch."""

    @property
    def name(self) -> str:
        """What a person calls it."""

    @property
    def execution_precision(self) -> str:
        """What it really runs in."""

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """uint8 images (N, H, W, C) → float32 logits (N, classes)."""

    def infer_at_once(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """The same, each image in a request of its own and all at the same time."""


def range_of_file(least: int, most: int | None) -> BatchRange:
    """The batch sizes of a model file; one of the usual sizes for an end that it leaves open."""
    largest = most or max(least, _USUAL_SIZE)
    return BatchRange(least, min(max(_USUAL_SIZE, least), largest), largest)


def graph_sizes(batch: BatchRange) -> tuple[int, ...]:
    """Fewer, for the graphs between network and engine; none where the batch is written in them.

    They run without optimizations: the largest batch would cost more than all the rest.
    """
    if batch.minimum == batch.maximum:
        return ()
    odd = min((batch.minimum + 1) | 1, batch.maximum)
    return tuple(sorted({batch.minimum, odd, batch.optimum}))


class BatchSizeCheck:
    """Pictures with the reference's answers, to run a model on at several batch sizes.

    Args:
        pixels: uint8 (N, H, W, C), N ≥ 1; repeated where a size is larger than N.
        expected: the reference's logits (N, classes).
        as_probabilities: compare the probabilities that the logits stand for.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        expected: NDArray[np.float32],
        output: OutputKind = "single-label",
        *,
        as_probabilities: bool = False,
    ) -> None:
        self._pixels = pixels
        self._as_probabilities = as_probabilities
        self._expected = expected
        self._output: OutputKind = output

    def pixels_at(self, size: int) -> NDArray[np.uint8]:
        """The first batch of that size."""
        return self._pixels[np.arange(size) % len(self._pixels)]

    def run(
        self,
        model: Classifier,
        sizes: Sequence[int],
        own_answers_db: float,
        gate: Gate | None = None,
        progress: Steps | None = None,
        *,
        limits: Gate | None = None,
    ) -> list[AtBatchSize]:
        """Run each picture at each size at least once, in batches of just that size.

        Args:
            own_answers_db: least SQNR of all pictures, and of each that is off by more than chance,
                against the model's own answers at the size that is closest to the reference: a
                single wrong row cannot hide in a mean.
            gate: what all pictures together must hold against the reference at each size.
            progress: called with the sizes done and all there are.
            limits: what many more pictures must hold; see `broken_limits`.
        """
        answers: dict[int, NDArray[np.float32]] = {}
        broken: dict[int, AtBatchSize] = {}
        for done, size in enumerate(sizes, 1):
            try:
                answers[size] = self._answers(model, size)
            except BackendError as error:
                failure = f"at batch {size}: {error}"
                broken[size] = AtBatchSize(size, math.nan, math.nan, (failure,), own_answers_db)
            if progress:
                progress(done, len(sizes))
        against = {size: self._against_reference(model, rows) for size, rows in answers.items()}
        reached = {size: _sqnr_db(result) for size, result in against.items()}
        best = max(reached, key=lambda size: _rank(reached[size]), default=0)
        judged = {}
        for size, rows in answers.items():
            by_row = self._decibels(rows, answers[best])
            failures = [
                *(gate.check(against[size]) if gate else ()),
                *(broken_limits(limits, against[size], against[best]) if limits else ()),
                *_otherwise(by_row, size, best, own_answers_db, rows.shape[-1]),
            ]
            failures = failures or _further_off(
                reached, size, by_row, own_answers_db, rows.shape[-1]
            )
            told = tuple(f"at batch {size}: {failure}" for failure in failures)
            worst = min(by_row, key=_rank)
            judged[size] = AtBatchSize(size, reached[size], worst, told, own_answers_db)
        return [(judged | broken)[size] for size in sizes]

    def at_once(self, model: AsksAtOnce, own_answers_db: float) -> AtOnce:
        """Ask for each picture alone, then for all at the same time, each by itself.

        Args:
            own_answers_db: least SQNR against the answers to each alone, as of `run`.
        """
        clients = len(self._pixels)
        try:
            alone = self._answers(model, 1)
            rows = model.infer_at_once(self._pixels)
            by_row = self._decibels(rows, alone)
        except BackendError as error:
            failure = f"asked by {clients} clients at once: {error}"
            return AtOnce(clients, math.nan, own_answers_db, (failure,))
        row = _worst(by_row)
        failures: tuple[str, ...] = ()
        if _is_wrong(by_row, own_answers_db, rows.shape[-1]):
            failures = (
                f"asked by {clients} clients at once, it answers picture {row + 1} otherwise than "
                f"alone: SQNR {by_row[row]:.1f} dB is below the {own_answers_db:g} dB asked for",
            )
        return AtOnce(clients, by_row[row], own_answers_db, failures)

    def _answers(self, model: Classifier, size: int) -> NDArray[np.float32]:
        """Logits of the pictures in turn, in full batches: row i is picture i modulo N."""
        calls = math.ceil(len(self._pixels) / size)
        indices = np.arange(calls * size) % len(self._pixels)
        return np.concatenate(
            [logits_of(model, self._pixels[part]) for part in np.split(indices, calls)]
        )

    def _against_reference(self, model: Classifier, answers: NDArray[np.float32]) -> ParityResult:
        comparison = Comparison(
            "the reference",
            model.name,
            "",
            "",
            self._output,
            as_probabilities=self._as_probabilities,
        )
        comparison.update(self._expected, answers[: len(self._expected)])
        return comparison.result()

    def _decibels(
        self, logits: NDArray[np.float32], own_logits: NDArray[np.float32]
    ) -> list[float]:
        """The noise of each answer against the mean power of all pictures.

        Not against its own power: of two classes, a picture may rightly have logits near zero. Of a
        regression, the power is that of the deviations from the mean, each output's its own.
        """
        pictures = len(self._pixels)
        answers, own = self._compared(logits), self._compared(own_logits[:pictures])
        errors = answers - own[np.arange(len(answers)) % pictures]
        if self._output == "regression" and pictures > 1:
            own = own - own.mean(axis=0)
            spread = own.std(axis=0)
            scale = np.where(spread > 0, spread, 1.0)
            own, errors = own / scale, errors / scale
        signal = float(np.square(own).sum()) / pictures
        noise = np.square(errors).sum(axis=1)
        return [decibels(signal, float(each)) for each in noise]

    def _compared(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        if self._as_probabilities:
            return probabilities(logits, self._output)
        return logits.astype(np.float64)


def _otherwise(
    values: Sequence[float], size: int, own_size: int, limit: float, outputs: int
) -> list[str]:
    """One line where a picture's answer is another one; of several, the worst is named."""
    if not _is_wrong(values, limit, outputs):
        return []
    row = _worst(values)
    return [
        f"picture {row % size + 1} of {size} is answered otherwise than at batch {own_size}: "
        f"SQNR {values[row]:.1f} dB is below the {limit:g} dB asked for"
    ]


def _further_off(
    reached: Mapping[int, float], size: int, by_row: Sequence[float], limit: float, outputs: int
) -> list[str]:
    """One line where a size is further from the reference than most others, beyond rounding.

    Its answers may be within the limit against the model's own: that is set for the coarsest
    kernels of a precision, and those that this model has at its other sizes may be far better.

    Args:
        reached: the SQNR of all pictures against the reference, by the size.
        by_row: of each picture against the model's own at the size that is closest.
    """
    others = [each for other, each in reached.items() if other != size]
    if len(others) < _FEWEST_OTHERS or _together(by_row) >= limit + _OFTEN_ABOVE_LIMIT_DB:
        return []
    usual = float(np.median(np.power(10.0, -np.array(others) / 10)))
    allowed = _SIZES_DIFFER * _quantile(len(by_row) * outputs, _CHANCE_DEVIATIONS) * usual
    least = decibels(1.0, allowed)
    if reached[size] >= least:
        return []
    return [
        f"its answers are further off than at most other batch sizes: SQNR {reached[size]:.1f} dB "
        f"is below the {least:.1f} dB asked for"
    ]


def _together(values: Sequence[float]) -> float:
    """The SQNR of all pictures, from that of each against the same power."""
    return decibels(1.0, float(np.power(10.0, -np.array(values) / 10).mean()))


def _is_wrong(values: Sequence[float], limit: float, outputs: int) -> bool:
    """Whether all pictures' answers, or the worst one's, are others and not just rounded otherwise.

    Some pictures are harder to round than others, and the fewer outputs a picture has, the further
    it is off by chance: of a single output by 15 dB, of a thousand by 1.

    Args:
        values: the SQNR of each picture, against the same power.
        limit: least SQNR.
        outputs: of one picture.
    """
    noise = np.power(10.0, -np.array(values) / 10)
    # A NaN compares as false, hence is wrong.
    if not noise.mean() <= 10 ** (-limit / 10):
        return True
    worst = _worst(values)
    if values[worst] >= limit:
        return False
    others = np.delete(noise, worst)
    # Of the others some may be wrong, too: the median is of those that are not.
    usual = np.median(others) / _quantile(outputs, 0.0)
    furthest = _PICTURES_DIFFER * _quantile(outputs, _CHANCE_DEVIATIONS) * usual
    return bool(noise[worst] > furthest)


def _quantile(outputs: int, deviations: float) -> float:
    """The noise of a picture, over its mean: the sum of squares of normal values, one an output.

    Args:
        deviations: of the normal distribution, to which Wilson and Hilferty (1931) bring it; the
            median is at 0.
    """
    part = 2 / (9 * outputs)
    return (1 - part + deviations * math.sqrt(part)) ** 3


def _worst(values: Sequence[float]) -> int:
    return min(range(len(values)), key=lambda index: _rank(values[index]))


def _sqnr_db(result: ParityResult) -> float:
    measured = result.value("sqnr_db")
    return math.nan if measured is None else measured


def _rank(sqnr_db: float) -> float:
    return -math.inf if math.isnan(sqnr_db) else sqnr_db
