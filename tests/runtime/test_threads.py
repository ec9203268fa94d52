"""Threads that die before their first step, and runners that come while others close."""

from __future__ import annotations

import _thread
import itertools
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_bundles import SIDE, tiny_model, write_bundle

from effnet_edge.runtime import EngineRunner, lifetime, threads
from effnet_edge.runtime.lifetime import Lifetime
from effnet_edge.runtime.workers import Workers

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 60
SECONDS = 0.5


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Let every second new thread die before it begins, as an exception from outside does."""
    fates = itertools.cycle([False, True])
    gone: list[object] = []

    def start(function: Any, arguments: tuple[Any, ...]) -> None:
        if next(fates):
            _thread.start_new_thread(function, arguments)
        else:
            gone.append(function)

    monkeypatch.setattr(threads, "_thread", SimpleNamespace(start_new_thread=start))
    return gone


def test_a_batch_is_answered_and_a_runner_closed_though_threads_die_unborn(
    tmp_path: Path, lost: list[object]
) -> None:
    run = EngineRunner.load(write_bundle(tmp_path / "b", "onnxruntime", tiny_model(batch="N")))
    batch = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    assert run.submit(batch).result(PATIENCE).shape[0] == 1
    closing = threading.Thread(target=run.close, daemon=True)
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert len(lost) == 2


def test_what_begins_late_is_not_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[tuple[Any, tuple[Any, ...]]] = []
    done: list[str] = []

    def start(function: Any, arguments: tuple[Any, ...]) -> None:
        held.append((function, arguments))
        if len(held) > 1:
            # Both begin when the second one is started.
            for late, its_arguments in held:
                late(*its_arguments)

    monkeypatch.setattr(threads, "_thread", SimpleNamespace(start_new_thread=start))
    threads.start_thread(done.append, "once")
    assert len(held) == 2
    assert done == ["once"]


def test_runners_may_come_while_others_close(tmp_path: Path) -> None:
    """A set that grows while it is iterated raises RuntimeError in whoever iterates."""
    of_other_tests = len(lifetime._living())
    end = time.monotonic() + SECONDS
    kept: list[Lifetime] = []

    def come() -> None:
        while time.monotonic() < end:
            kept.append(Lifetime(tmp_path, Workers(1), lambda: None))

    coming = threading.Thread(target=come)
    coming.start()
    while coming.is_alive():
        alive = len(lifetime._living())
    assert 0 < alive <= len(kept) + of_other_tests
