from __future__ import annotations

import ctypes
import gc
import signal
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_backends import FakeBackend, SummingBackend
from runner_answers import started
from tiny_bundles import CLASSES, SIDE, tiny_model, write_bundle

from effnet_edge.bundle import Bundle
from effnet_edge.errors import BackendError
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.lifetime import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

PATIENCE = 60
"""Seconds that tell a hang; nothing takes nearly as long."""


def pixels(count: int = 1, value: int = 1) -> npt.NDArray[np.uint8]:
    return np.full((count, SIDE, SIDE, 3), value, np.uint8)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lifetime")
    return write_bundle(folder / "b", "onnxruntime", tiny_model(batch="N"))


@pytest.fixture
def fake(path: Path) -> tuple[FakeBackend, EngineRunner]:
    backend = FakeBackend()
    return backend, EngineRunner(Bundle.load(path), backend)


@pytest.fixture(params=[1, 3])
def held(path: Path, request: pytest.FixtureRequest) -> tuple[FakeBackend, EngineRunner]:
    """An engine that answers when told to, so that callbacks come first and workers call them."""
    backend = FakeBackend(request.param)
    return backend, EngineRunner(Bundle.load(path), backend)


@pytest.fixture(params=[1, 3])
def summing(path: Path, request: pytest.FixtureRequest) -> tuple[SummingBackend, EngineRunner]:
    backend = SummingBackend(request.param)
    return backend, EngineRunner(Bundle.load(path), backend)


def state(runner: EngineRunner) -> State:
    return runner._lifetime.state


def eventually(is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_so()


# Callbacks


def test_a_callback_may_submit_while_another_thread_submits_too(
    summing: tuple[SummingBackend, EngineRunner],
) -> None:
    _, runner = summing
    answers: list[Future[Any]] = []

    def produce() -> None:
        for _ in range(60):
            future = runner.submit(pixels())
            future.add_done_callback(lambda _: answers.append(runner.submit(pixels())))

    producers = [started(produce) for _ in range(3)]
    for producer in producers:
        producer.result(PATIENCE)
    started(runner.close).result(PATIENCE)
    assert all(future.result(0).shape == (1, CLASSES) for future in answers)


@pytest.mark.parametrize(
    "wait", [lambda f: f.result(PATIENCE), lambda f: wait_for([f], PATIENCE, FIRST_COMPLETED)]
)
def test_a_callback_may_wait_for_what_it_submits_or_what_is_queued_already(
    held: tuple[FakeBackend, EngineRunner], wait: Callable[[Future[Any]], object]
) -> None:
    backend, runner = held
    queued: list[Future[Any]] = []
    done = threading.Event()

    def callback(_: object) -> None:
        wait(queued[0])
        wait(runner.submit(pixels()))
        runner.infer(pixels())
        done.set()

    runner.submit(pixels()).add_done_callback(callback)
    queued.append(runner.submit(pixels()))
    backend.go.set()
    assert done.wait(PATIENCE)
    started(runner.close).result(PATIENCE)


def test_callbacks_of_two_runners_may_submit_to_each_other(path: Path) -> None:
    a, b = (EngineRunner(Bundle.load(path), SummingBackend()) for _ in range(2))

    def produce(here: EngineRunner, there: EngineRunner) -> None:
        for _ in range(60):
            here.submit(pixels()).add_done_callback(lambda _: there.submit(pixels()))

    for producer in (started(lambda: produce(a, b)), started(lambda: produce(b, a))):
        producer.result(PATIENCE)
    started(a.close).result(PATIENCE)
    started(b.close).result(PATIENCE)


def test_a_callback_may_close_and_the_engine_is_released_once(
    held: tuple[FakeBackend, EngineRunner],
) -> None:
    backend, runner = held
    said: Future[Any] = Future()

    def callback(_: object) -> None:
        try:
            said.set_result(runner.close())
        except BaseException as error:
            said.set_exception(error)

    runner.submit(pixels()).add_done_callback(callback)
    backend.go.set()
    assert said.result(PATIENCE) is None
    started(runner.close).result(PATIENCE)
    assert eventually(lambda: state(runner) is State.CLOSED)
    assert backend.closed == 1


def test_after_a_close_in_a_callback_what_was_submitted_before_is_still_answered(
    fake: tuple[FakeBackend, EngineRunner],
) -> None:
    backend, runner = fake
    first = runner.submit(pixels())
    first.add_done_callback(lambda _: runner.close())
    others = [runner.submit(pixels()) for _ in range(3)]
    backend.go.set()
    assert all(future.result(PATIENCE).shape == (1, CLASSES) for future in others)
    assert eventually(lambda: state(runner) is State.CLOSED)
    with pytest.raises(BackendError, match="is closed"):
        runner.submit(pixels())


def test_a_cancelled_future_is_told_to_those_who_wait(
    fake: tuple[FakeBackend, EngineRunner],
) -> None:
    backend, runner = fake
    futures = [runner.submit(pixels()) for _ in range(4)]
    waiting = started(lambda: wait_for([futures[3]], PATIENCE))
    assert futures[3].cancel()
    assert waiting.result(PATIENCE).done == {futures[3]}
    backend.go.set()
    started(runner.close).result(PATIENCE)


def test_batches_run_in_the_order_in_which_they_were_submitted(path: Path) -> None:
    backend = SummingBackend()
    runner = EngineRunner(Bundle.load(path), backend)
    order: list[float] = []
    real = backend.infer
    backend.infer = lambda b: (order.append(float(b[0, 0, 0, 0])), real(b))[1]  # type: ignore[method-assign]
    for value in range(200):
        runner.submit(pixels(value=value)).add_done_callback(lambda _: time.sleep(0))
    started(runner.close).result(PATIENCE)
    assert order == sorted(order)
    assert len(order) == 200


# Closing


def test_the_states_of_a_life(fake: tuple[FakeBackend, EngineRunner]) -> None:
    backend, runner = fake
    assert state(runner) is State.LOADED
    call = started(lambda: runner.infer(pixels()))
    assert backend.running.acquire(timeout=PATIENCE)
    closing = started(runner.close)
    assert eventually(lambda: state(runner) is State.CLOSING)
    with pytest.raises(BackendError, match="is closed: load the bundle again"):
        runner.infer(pixels())
    assert not call.done()
    backend.go.set()
    closing.result(PATIENCE)
    assert state(runner) is State.CLOSED


def test_a_signal_handler_may_close_during_infer(path: Path) -> None:
    backend = SummingBackend()
    runner = EngineRunner(Bundle.load(path), backend)
    real = backend.infer

    def interrupted(batch: Any) -> Any:
        signal.raise_signal(signal.SIGUSR1)
        return real(batch)

    backend.infer = interrupted  # type: ignore[method-assign]
    before = signal.signal(signal.SIGUSR1, lambda *_: runner.close())
    try:
        assert runner.infer(pixels()).shape == (1, CLASSES)
    finally:
        signal.signal(signal.SIGUSR1, before)
    runner.close()
    assert backend.closed == 1


def test_an_interrupted_close_goes_on_and_may_be_repeated(
    fake: tuple[FakeBackend, EngineRunner],
) -> None:
    backend, runner = fake
    call = started(lambda: runner.infer(pixels()))
    assert backend.running.acquire(timeout=PATIENCE)
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        runner.close()
    assert not backend.closed
    backend.go.set()
    runner.close()
    assert backend.closed == 1
    assert call.result(PATIENCE).shape == (1, CLASSES)


def test_two_finalizers_may_close_two_runners_within_each_other(path: Path) -> None:
    """As when garbage is collected in two threads at once, each within the other's runner."""
    backends = [SummingBackend() for _ in range(2)]
    a, b = (EngineRunner(Bundle.load(path), backend) for backend in backends)
    both = threading.Barrier(2)
    real = SummingBackend.infer

    def closing(backend: SummingBackend, other: EngineRunner) -> Callable[[Any], Any]:
        def infer(batch: Any) -> Any:
            both.wait(PATIENCE)
            other.close()
            return real(backend, batch)

        return infer

    for backend, other in zip(backends, (b, a), strict=True):
        backend.infer = closing(backend, other)  # type: ignore[method-assign]
    for call in (started(lambda: a.infer(pixels())), started(lambda: b.infer(pixels()))):
        assert call.result(PATIENCE).shape == (1, CLASSES)
    assert eventually(lambda: [backend.closed for backend in backends] == [1, 1])


def test_a_runner_that_nobody_closes_leaves_no_thread_and_no_engine(path: Path) -> None:
    import weakref

    backend = SummingBackend()
    gone = weakref.ref(backend)
    runner = EngineRunner(Bundle.load(path), backend)
    assert runner.submit(pixels()).result(PATIENCE).shape == (1, CLASSES)
    alive, resting = runner._workers._alive, runner._workers._resting
    assert eventually(lambda: bool(resting))
    del runner, backend
    gc.collect()
    assert eventually(lambda: gone() is None and not alive)


def test_an_engine_that_cannot_be_released_says_so_and_is_closed(path: Path) -> None:
    backend = SummingBackend()

    def broken() -> None:
        raise BackendError("cannot let go")

    backend.close = broken  # type: ignore[method-assign]
    runner = EngineRunner(Bundle.load(path), backend)
    with pytest.raises(BackendError, match="cannot let go"):
        runner.close()
    runner.close()
    assert state(runner) is State.CLOSED


# Interrupts


@pytest.mark.usefixtures("interrupted_cleanup")
def test_interrupts_anywhere_leave_nothing_behind(
    summing: tuple[SummingBackend, EngineRunner],
) -> None:
    """Asynchronous exceptions between any two steps of a thread that infers and submits."""
    backend, runner = summing
    stop, hits = threading.Event(), [0]
    answers: list[Future[Any]] = []

    def loop() -> None:
        while not stop.is_set():
            try:
                while not stop.is_set():
                    runner.infer(pixels())
                    answers.append(runner.submit(pixels()))
            except KeyboardInterrupt:
                hits[0] += 1

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    random = np.random.default_rng(0)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        time.sleep(float(random.uniform(0, 2e-3)))
        interrupt(thread)
    stop.set()
    thread.join(PATIENCE)
    assert hits[0]
    started(runner.close).result(PATIENCE)
    assert backend.closed == 1
    assert all(future.result(0).shape == (1, CLASSES) for future in answers)


def test_an_interrupt_of_who_waits_for_an_answer_holds_nobody_up(
    fake: tuple[FakeBackend, EngineRunner],
) -> None:
    """At the worst moment: when the future's lock is taken, and nobody yet bound to release it."""
    backend, runner = fake
    future = runner.submit(pixels())

    def interrupt_once_locked(_frame: object, event: str, called: Any) -> None:
        if event == "c_return" and called.__name__ == "__enter__":
            raise KeyboardInterrupt

    sys.setprofile(interrupt_once_locked)
    try:
        with suppress(KeyboardInterrupt, TimeoutError):
            future.result(0.1)
    finally:
        sys.setprofile(None)
    backend.go.set()

    started(runner.close).result(20)
    assert state(runner) is State.CLOSED


def interrupt(thread: threading.Thread) -> None:
    ident = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(KeyboardInterrupt))


def test_many_threads_submit_and_only_twice_the_parallelism_is_under_way(
    fake: tuple[FakeBackend, EngineRunner],
) -> None:
    backend, runner = fake
    with ThreadPoolExecutor(8) as pool:
        submitted = [pool.submit(runner.submit, pixels()) for _ in range(8)]
        assert eventually(lambda: sum(each.done() for each in submitted) == 4)
        assert wait_for(submitted, timeout=0.2).not_done
        backend.go.set()
    assert all(each.result().result(PATIENCE).shape == (1, CLASSES) for each in submitted)
    started(runner.close).result(PATIENCE)
    assert backend.most_at_once == 2
