"""Long runs: many threads, runners that come and go, interrupts, and no growth.

docs/trust.md has the commands for an hour of it, and for a million inferences.
"""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from runner_answers import CPU_TARGETS
from tiny_bundles import SIDE, tiny_model, write_bundle

from effnet_edge.errors import BackendError
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

PATIENCE = 120
THREADS = 16
SEEDS = 20


def pixels(seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (1 + seed % 3, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(params=CPU_TARGETS)
def bundle(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return write_bundle(tmp_path / "b", str(request.param), tiny_model(batch="N"))


class Visitors:
    """Threads that use whatever runner is there now, and compare with what one thread was told."""

    def __init__(self, bundle: Path) -> None:
        self.bundle, self.stop = bundle, threading.Event()
        self.runner = EngineRunner.load(bundle, threads=1)
        self.right = [self.runner.infer(pixels(seed)) for seed in range(SEEDS)]
        self.answers, self.wrong, self.unexpected = 0, 0, list[BaseException]()

    def loop(self, number: int) -> None:
        chance = random.Random(number)
        while not self.stop.is_set():
            try:
                self._visit(chance)
            except (BackendError, KeyboardInterrupt):
                # Closed meanwhile, or interrupted.
                continue
            except BaseException as error:
                self.unexpected.append(error)

    def _visit(self, chance: random.Random) -> None:
        seed, run = chance.randrange(SEEDS), self.runner
        kind = chance.random()
        if kind < 0.5:
            self._check(seed, run.infer(pixels(seed)))
        elif kind < 0.9:
            future = run.submit(pixels(seed))
            self._check(seed, future.result(PATIENCE))
        elif kind < 0.99:
            run.submit(pixels(seed)).add_done_callback(lambda f: self._check(seed, f.result()))
        else:
            fresh = EngineRunner.load(self.bundle, threads=1)
            self.runner = fresh
            run.close()

    def _check(self, seed: int, logits: Any) -> None:
        self.answers += 1
        if not np.allclose(logits, self.right[seed], rtol=1e-4, atol=1e-4):
            self.wrong += 1


@pytest.mark.sample
@pytest.mark.usefixtures("interrupted_cleanup")
def test_many_threads_runners_that_come_and_go_and_interrupts(
    bundle: Path, pytestconfig: pytest.Config
) -> None:
    visitors = Visitors(bundle)
    threads = [
        threading.Thread(target=visitors.loop, args=(number,), daemon=True)
        for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    chance = random.Random(0)
    deadline = time.monotonic() + pytestconfig.getoption("--stress-seconds") / 2
    while time.monotonic() < deadline:
        time.sleep(chance.uniform(0, 5e-3))
        _interrupt(chance.choice(threads))
    visitors.stop.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    closing = threading.Thread(target=visitors.runner.close, daemon=True)
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert visitors.answers
    assert (visitors.wrong, visitors.unexpected) == (0, [])


def _interrupt(thread: threading.Thread) -> None:
    if not thread.is_alive():
        # Interrupted twice and gone; its number may be another thread's by now.
        return
    ident = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(KeyboardInterrupt))


USE = """
import sys
from pathlib import Path
import numpy as np
from effnet_edge.runtime import EngineRunner

PAGE = 4096

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

def infer(run, batch, count):
    for _ in range(count // 2):
        run.infer(batch)
        run.submit(batch).result()

count, side = int(sys.argv[2]), int(sys.argv[3])
batch = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
with EngineRunner.load(sys.argv[1], threads=1) as run:
    infer(run, batch, count // 10)
    before = resident_bytes()
    infer(run, batch, count - count // 10)
    print(resident_bytes() - before)
"""


@pytest.mark.sample
def test_memory_does_not_grow(bundle: Path, pytestconfig: pytest.Config) -> None:
    """After the first tenth, which fills caches, the rest adds less than 4 MiB.

    In a process of its own: nothing else of the tests is in its memory.
    """
    count = pytestconfig.getoption("--inferences")
    used = subprocess.run(
        [sys.executable, "-c", USE, str(bundle), str(count), str(SIDE)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=True,
        capture_output=True,
        text=True,
    )
    grown = int(used.stdout)
    assert grown < 4 * 2**20, f"{grown} bytes in {count} inferences"
