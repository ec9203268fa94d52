from __future__ import annotations

from concurrent.futures import wait as wait_for
from typing import TYPE_CHECKING

import pytest
from fake_backends import FakeBackend
from runner_answers import pixels, started
from tiny_bundles import CLASSES

from effnet_edge.bundle import Bundle
from effnet_edge.errors import BackendError
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("gpu")

# Closing


def test_a_closed_runner_refuses_everything(bundles: Path, target: str) -> None:
    run = EngineRunner.load(bundles / f"{target}-one")
    run.infer(pixels(1))
    run.close()
    run.close()
    calls = (
        lambda: run.infer(pixels(1)),
        lambda: run.submit(pixels(1)),
        lambda: run.classify(pixels(1)[0]),
        run.warmup,
        lambda: run.execution_precision,
    )
    for call in calls:
        with pytest.raises(BackendError, match="is closed"):
            call()
    assert run.device


def test_leaving_the_context_closes(bundles: Path, target: str) -> None:
    with EngineRunner.load(bundles / f"{target}-one") as run:
        future = run.submit(pixels(1))
    assert future.done()
    with pytest.raises(BackendError, match="is closed"):
        run.infer(pixels(1))


@pytest.fixture
def fake(bundles: Path) -> tuple[FakeBackend, EngineRunner]:
    backend = FakeBackend()
    return backend, EngineRunner(Bundle.load(bundles / "openvino-one"), backend)


def test_closing_waits_for_calls_and_futures_under_way(
    fake: tuple[FakeBackend, EngineRunner],
) -> None:
    backend, runner = fake
    call = started(lambda: runner.infer(pixels(1)))
    futures = [runner.submit(pixels(1)) for _ in range(4)]
    for _ in range(3):
        assert backend.running.acquire(timeout=60)
    closing, again = started(runner.close), started(runner.close)
    assert not wait_for([closing, again], timeout=0.2).done
    assert not backend.closed
    backend.go.set()
    closing.result(60)
    again.result(60)
    assert backend.closed == 1
    assert call.done()
    assert all(future.result(0).shape == (1, CLASSES) for future in futures)


def test_submit_waits_when_twice_the_parallelism_is_under_way(
    fake: tuple[FakeBackend, EngineRunner],
) -> None:
    backend, runner = fake
    futures = [runner.submit(pixels(1)) for _ in range(4)]
    fifth = started(lambda: runner.submit(pixels(1)))
    assert not wait_for([fifth], timeout=0.2).done
    backend.go.set()
    fifth.result(60).result(60)
    runner.close()
    assert all(future.done() for future in futures)
    assert backend.most_at_once == 2


def test_a_submit_that_waits_while_the_runner_closes_still_finishes(
    fake: tuple[FakeBackend, EngineRunner],
) -> None:
    backend, runner = fake
    for _ in range(4):
        runner.submit(pixels(1))
    fifth = started(lambda: runner.submit(pixels(1)))
    wait_for([fifth], timeout=0.1)
    closing = started(runner.close)
    wait_for([closing], timeout=0.1)
    with pytest.raises(BackendError, match="is closed"):
        runner.submit(pixels(1))
    backend.go.set()
    assert fifth.result(60).result(60).shape == (1, CLASSES)
    closing.result(60)


def test_a_cancelled_future_gives_its_place_back(fake: tuple[FakeBackend, EngineRunner]) -> None:
    backend, runner = fake
    futures = [runner.submit(pixels(1)) for _ in range(4)]
    assert futures[3].cancel()
    replacement = runner.submit(pixels(1))
    backend.go.set()
    assert replacement.result(60).shape == (1, CLASSES)
    started(runner.close).result(60)
