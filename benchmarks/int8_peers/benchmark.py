"""The methods of one run, made and judged; every figure is kept in the store."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from effnet_edge import nonfinite
from effnet_edge.bench import compare
from int8_peers.engines import Running, open_bundle, open_model
from int8_peers.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from effnet_edge.parity import ParityResult
    from int8_peers.method import Method
    from int8_peers.store import Made, Store
    from int8_peers.subject import Pictures, Subject

THREADS = 2
HINT_NAMES = {"f32": "FP32", "bf16": "BF16"}


@dataclass(frozen=True)
class Candidate:
    """A method and the hint that its model runs under."""

    method: Method
    hint: str

    @property
    def label(self) -> str:
        """The table's row."""
        several = len(self.method.hints) > 1
        return f"{self.method.group}{f', rest {HINT_NAMES[self.hint]}' if several else ''}"

    @property
    def text(self) -> str:
        """The row and its settings."""
        return f"{self.label} ({self.method.text or 'defaults'})"


class Judge:
    """Compares models with the PyTorch network on the evaluation pictures, one by one."""

    def __init__(self, subject: Subject, evaluation: Pictures) -> None:
        self._subject = subject
        self._evaluation = evaluation

    @cached_property
    def _reference(self) -> Reference:
        return Reference.of(self._subject.folded, self._subject.preprocessing, self._evaluation)

    def note(self, candidate: Candidate) -> str:
        """The store's name for this candidate's judgement."""
        return f"accuracy-{candidate.hint or 'default'}-{self._evaluation.sha256[:12]}"

    def judge(self, store: Store, candidate: Candidate) -> dict[str, Any]:
        """Top-1, its drop and interval, agreement, KL, SQNR and what ran in which precision.

        Raises what making or loading the model does.
        """
        return store.remember(
            candidate.method, self.note(candidate), lambda made: self._judge(made, candidate)
        )

    def _judge(self, made: Made, candidate: Candidate) -> dict[str, Any]:
        running = _opened(made, candidate, self._subject, threads=1)
        result = self._reference.compare(candidate.label, "", running.infer)
        return {**_figures(result), "executed": running.executed}


def _figures(result: ParityResult) -> dict[str, Any]:
    assert result.accuracy is not None
    drop = result.accuracy.top1
    return {
        "images": result.images,
        "reference_top1": drop.reference,
        "top1": drop.candidate,
        "drop": drop.points,
        "interval": list(drop.interval),
        "agreement": 100 * result.values["top1_agreement"],
        "kl": result.kl,
        "sqnr_db": nonfinite.encode(result.values["sqnr_db"]),
    }


def time_in_turns(
    store: Store, candidates: Sequence[Candidate], subject: Subject, runs: int, warmup: int
) -> list[dict[str, float]]:
    """Batch-1 latencies in milliseconds, all models in one process and in turns, in their order."""
    pixels = subject.calibration.pixels[:1]
    calls: dict[str, Callable[[], object]] = {}
    for index, candidate in enumerate(candidates):
        made = store.make(candidate.method)
        calls[str(index)] = _opened(made, candidate, subject, THREADS).bare(pixels)
    return [
        {
            "median_ms": 1e3 * timing.median,
            "p90_ms": 1e3 * timing.p90,
            "minimum_ms": 1e3 * timing.minimum,
        }
        for timing in compare(calls, runs, warmup)
    ]


def _opened(made: Made, candidate: Candidate, subject: Subject, threads: int) -> Running:
    method, hint = candidate.method, candidate.hint
    if method.in_runner:
        return open_bundle(made.file.parent, hint, threads)
    return open_model(method.engine, made.file, hint, subject.preprocessing, threads)
