"""The rows of the tables: what has been made and judged, and the best of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from int8_peers.benchmark import Candidate, Judge
    from int8_peers.store import Made, Store


@dataclass(frozen=True)
class Judged:
    """A candidate with its model and figures."""

    candidate: Candidate
    made: Made
    figures: dict[str, Any]


def judged(store: Store, candidates: Sequence[Candidate], judge: Judge) -> list[Judged]:
    """Those candidates that have been made and judged, in order."""
    found = []
    for candidate in candidates:
        made = store.made(candidate.method)
        figures = store.recall(candidate.method, judge.note(candidate))
        if made and figures:
            found.append(Judged(candidate, made, figures))
    return found


def best_of_each(everything: Sequence[Judged]) -> list[Judged]:
    """Of every row the one with the lowest KL, in the order of the rows."""
    best: dict[str, Judged] = {}
    for each in everything:
        label = each.candidate.label
        if label not in best or each.figures["kl"] < best[label].figures["kl"]:
            best[label] = each
    return list(best.values())
