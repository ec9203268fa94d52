"""Engines in turns are each asked as often and for as much as was said; no time is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.bundle import Bundle
from effnet_edge.choosing import timing
from effnet_edge.choosing.timing import images_per_second, seconds_in_turns
from effnet_edge.progress import no_progress
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bundles(tmp_path: Path) -> dict[str, Bundle]:
    names = ("one", "other")
    return {
        name: Bundle.load(write_bundle(tmp_path / name, "onnxruntime", tiny_model(batch="N")))
        for name in names
    }


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Each call: the bundle, and for how many images."""
    calls: list[tuple[str, int]] = []
    infer = EngineRunner.infer

    def noted(self: EngineRunner, batch: Any) -> Any:
        calls.append((self.bundle.path.name, len(batch)))
        return infer(self, batch)

    monkeypatch.setattr(EngineRunner, "infer", noted)
    return calls


def test_the_best_batch_or_the_one_that_was_asked_for(
    bundles: dict[str, Bundle], asked: list[tuple[str, int]]
) -> None:
    seconds = seconds_in_turns(bundles, no_progress)
    assert {len(each) for each in seconds.values()} == {timing.ROUNDS}
    assert set(asked) == {("one", 4), ("other", 4)}
    asked.clear()
    seconds = seconds_in_turns(bundles, no_progress, 8, 3)
    assert {len(each) for each in seconds.values()} == {3}
    assert set(asked) == {("one", 8), ("other", 8)}


def test_under_load_all_images_count(
    bundles: dict[str, Bundle],
    asked: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[bool] = []
    of = EngineRunner.of

    def noted(bundle: Bundle, **options: Any) -> EngineRunner:
        loaded.append(options["throughput"])
        return of(bundle, **options)

    monkeypatch.setattr(EngineRunner, "of", noted)
    told: list[tuple[str, int, int]] = []
    rates = images_per_second(bundles, lambda *step: told.append(step))
    assert loaded == [True, True]
    assert asked.count(("one", 4)) == asked.count(("other", 4)) == timing.WARMUP + timing.LOAD_CALLS
    assert all(rate > 0 for rate in rates.values())
    assert told[-1] == ("blocks", 5, 5)
