"""Latencies of the table's rows, and where they are kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from int8_peers.benchmark import time_in_turns
from int8_peers.with_nncf import FRONTEND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from int8_peers.method import Engine
    from int8_peers.rows import Judged
    from int8_peers.store import Store
    from int8_peers.subject import Subject

FILE = "latency.json"
ENGINES: tuple[Engine, ...] = ("openvino", "onnxruntime")


def measure(store: Store, rows: Sequence[Judged], subject: Subject, runs: int, warmup: int) -> None:
    """Time the rows of each engine in turns and keep the times.

    NNCF's fastest row is timed again beside onnxruntime's, so that these have a ratio to it.
    """
    kept: dict[str, Any] = {"runs": runs, "warmup": warmup}
    fastest: list[Judged] = []
    for engine in ENGINES:
        group = [*fastest, *(each for each in rows if each.candidate.method.engine == engine)]
        times = time_in_turns(store, [each.candidate for each in group], subject, runs, warmup)
        kept[engine] = {_key(store, row): each for row, each in zip(group, times, strict=True)}
        own = [row for row in group if _is_nncf(row)]
        fastest = sorted(own, key=lambda row: kept[engine][_key(store, row)]["median_ms"])[:1]
    (store.folder / FILE).write_text(json.dumps(kept, indent=2), encoding="utf-8")


@dataclass(frozen=True)
class Timed:
    """A row of the latency table; `times` are milliseconds by name."""

    label: str
    times: dict[str, float]


@dataclass(frozen=True)
class Turn:
    """What was timed together.

    Attributes:
        fastest_nncf: the lowest median of NNCF's rows, in milliseconds.
        runs: timed calls of each model.
    """

    rows: list[Timed]
    fastest_nncf: float
    runs: int


def recall(store: Store, rows: Sequence[Judged], engine: Engine) -> Turn | None:
    """The kept times of those rows whose models are still the same; None without one of NNCF's."""
    file = store.folder / FILE
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    times = kept.get(engine, {})
    timed = [(row, times[_key(store, row)]) for row in rows if _key(store, row) in times]
    nncf = [each["median_ms"] for row, each in timed if _is_nncf(row)]
    if not nncf:
        return None
    named = [Timed(row.candidate.label, each) for row, each in timed]
    return Turn(named, min(nncf), kept["runs"])


def _is_nncf(row: Judged) -> bool:
    return row.candidate.method.group.startswith(FRONTEND)


def _key(store: Store, row: Judged) -> str:
    return f"{store.name(row.candidate.method)} {row.candidate.hint}"
