"""The interpreter's end, forks and signals, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from later import quick
from runner_answers import CPU_TARGETS
from tiny_bundles import tiny_model, write_bundle

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 120
"""Seconds that tell a hang; nothing takes nearly as long."""

BEGINNING = """
import multiprocessing, os, signal, sys, threading, time
import numpy as np
from effnet_edge import EngineRunner
from effnet_edge.errors import BackendError
x = np.zeros((1, 8, 8, 3), np.uint8)
path = sys.argv[1]
run = EngineRunner.load(path, threads=1)
right = run.infer(x)
run.submit(x).result()
"""

# A child of a fork that ends as a program does, and not as multiprocessing's children do.
FORK = """
child = os.fork()
if child:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert (run.infer(x) == right).all() and (run.submit(x).result() == right).all()
    sys.exit(code)
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    for target in CPU_TARGETS:
        write_bundle(folder / target, target, tiny_model(batch="N"))
    return folder


@pytest.fixture(params=quick(["openvino"], CPU_TARGETS, "sample"))
def bundle(bundles: Path, request: pytest.FixtureRequest) -> Path:
    return bundles / str(request.param)


def python(code: str, bundle: Path, beginning: str = BEGINNING) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", beginning + code, bundle],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def assert_well(done: subprocess.CompletedProcess[str], says: str = "") -> None:
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout == says


FIRST = """
import sys, threading
import numpy as np
from effnet_edge import EngineRunner
sys.setswitchinterval(1e-6)
run = EngineRunner.load(sys.argv[1], threads=1)
gate = threading.Barrier(4)
def ask():
    gate.wait()
    run.infer(np.zeros((1, 8, 8, 3), np.uint8))
threads = [threading.Thread(target=ask) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
"""


def test_the_first_inferences_may_be_at_once(bundle: Path) -> None:
    assert_well(python("", bundle, FIRST))


DAEMONS = """
def start(function):
    def loop():
        while True: function()
    for _ in range(3): threading.Thread(target=loop, daemon=True).start()
    time.sleep(.5)
"""


@pytest.mark.parametrize(
    "work",
    [
        "start(lambda: run.infer(x))",
        "start(lambda: run.submit(x))",
        pytest.param("start(lambda: run.classify(x[0]))", marks=pytest.mark.sample),
        pytest.param("start(lambda: EngineRunner.load(path).close())", marks=pytest.mark.sample),
        "start(lambda: EngineRunner.load(path).infer(x))",
        "start(lambda: run.infer(x)); run.close(); sys.exit()",
    ],
)
def test_daemon_threads_may_be_at_work_when_the_interpreter_ends(bundle: Path, work: str) -> None:
    done = python(DAEMONS + work, bundle)
    assert done.returncode == 0, done.stderr
    # Who comes after an explicit close is told so; who is overtaken by the end is not.
    assert done.stderr == "" or "run.close()" in work


def test_what_was_submitted_is_answered_before_the_interpreter_ends(bundle: Path) -> None:
    code = """
def tell(future): sys.stdout.write(f"{future.result().shape}\\n")
for _ in range(20): run.submit(x).add_done_callback(tell)
"""
    assert_well(python(code, bundle), "(1, 5)\n" * 20)


def test_after_the_end_there_is_one_line(bundle: Path) -> None:
    code = """
import atexit, effnet_edge.runtime.lifetime as lifetime
atexit.unregister(lifetime._end_of_the_interpreter)
def last():
    for call in (lambda: run.infer(x), lambda: run.submit(x), lambda: EngineRunner.load(path)):
        try: call()
        except BackendError as error: print(str(error).replace(path, ""))
    run.close()
atexit.register(last)
atexit.register(lifetime._end_of_the_interpreter)
"""
    closed = "the runner of  is closed: load the bundle again\n"
    ending = "the interpreter is ending: no bundle can be loaded any more\n"
    assert_well(python(code, bundle), closed * 2 + ending)


# What the engine's library does besides


def test_openvino_sends_no_telemetry_and_forks_nothing_for_it(bundles: Path) -> None:
    code = """
assert "openvino" in sys.modules and "openvino_telemetry" not in sys.modules
assert not multiprocessing.active_children()
import openvino_telemetry
print("can be had by who wants it")
"""
    assert_well(python(code, bundles / "openvino"), "can be had by who wants it\n")


# Forks


@pytest.mark.parametrize("call", ["infer(x)", "submit(x)", "classify(x[0])", "warmup()"])
def test_a_forked_child_is_told_to_load_the_bundle(bundle: Path, call: str) -> None:
    code = f"""
try: run.{call}
except BackendError as error: print(str(error).replace(path, ""))
run.close()
"""
    says = "the runner of  was loaded before this process was forked: "
    assert_well(python(FORK + code, bundle), says + "load the bundle in the child process\n")


def test_a_forked_child_may_load_the_bundle(bundle: Path) -> None:
    code = """
with EngineRunner.load(path) as own:
    assert np.allclose(own.infer(x), right) and np.allclose(own.submit(x).result(), right)
print("right")
"""
    assert_well(python(FORK + code, bundle), "right\n")


def test_a_forked_child_ends_with_its_own_exit_code(bundle: Path) -> None:
    done = python(FORK + "del run; sys.exit(3)", bundle)
    assert (done.returncode, done.stderr) == (3, "")


def test_a_fork_amid_work_never_hangs(bundle: Path) -> None:
    """The child waits for a future of the parent, too, while the parent's threads go on."""
    code = """
stop = []
def loop():
    while not stop: run.infer(x); run.submit(x)
threads = [threading.Thread(target=loop) for _ in range(3)]
for thread in threads: thread.start()
def child(future):
    for call in (lambda: run.infer(x), lambda: run.submit(x), future.result):
        try: call()
        except BackendError: pass
    run.close()
context = multiprocessing.get_context("fork")
for _ in range(10):
    process = context.Process(target=child, args=(run.submit(x),))
    process.start(); process.join(60)
    assert process.exitcode == 0, process.exitcode
stop.append(1)
for thread in threads: thread.join()
run.close()
print("well")
"""
    assert_well(python(code, bundle), "well\n")


# Signals

CTRL_C = """
try:
    os.kill(os.getpid(), signal.SIGINT); time.sleep(60)
except KeyboardInterrupt:
    print("caught")
"""


@pytest.mark.parametrize(
    "lives",
    [
        "a = EngineRunner.load(path); run.close(); a.close()",
        pytest.param(
            "a = EngineRunner.load(path); a.close(); run.close()", marks=pytest.mark.sample
        ),
        pytest.param("del run", marks=pytest.mark.sample),
        "run.close()\nfor _ in range(3):\n    a, b = map(EngineRunner.load, (path, path))\n"
        "    a.infer(x); a.close(); b.close()",
        "t = threading.Thread(target=run.close); t.start(); t.join()",
        "from effnet_edge.runtime.openvino_core import openvino_core\n"
        "for _ in range(2): openvino_core().compile_model(openvino_core().read_model("
        "str(run.bundle.model_path)), 'CPU')\n"
        "run.close()",
    ],
)
def test_ctrl_c_is_a_keyboard_interrupt_however_runners_were_closed(
    bundles: Path, lives: str
) -> None:
    done = python(lives + CTRL_C, bundles / "openvino")
    assert (done.returncode, done.stdout) == (0, "caught\n"), done.stderr


def test_interrupts_at_random_moments_leave_nothing_behind(bundle: Path) -> None:
    """Real signals in the main thread, in loads, calls and closes."""
    code = """
import random
chance = random.Random(0)
# Python itself swallows an interrupt in a finalizer, and tells of it.
def unless_interrupted(lost):
    if lost.exc_type is not KeyboardInterrupt: sys.__unraisablehook__(lost)
sys.unraisablehook = unless_interrupted
def handler(*_):
    if armed: raise KeyboardInterrupt
armed, hits, threads_before = False, 0, threading.active_count()
signal.signal(signal.SIGALRM, handler)
for turn in range(600):
    try:
        try:
            armed = True
            # Repeated: Python swallows an interrupt in the callback of a weak reference.
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 2e-3), 0.01)
            if turn % 50 == 0:
                run.close(); run = EngineRunner.load(path, threads=1)
            while True: run.infer(x); run.submit(x)
        finally:
            armed = False
    except KeyboardInterrupt:
        hits += 1
    except BackendError:
        armed = False
        run = EngineRunner.load(path, threads=1)
signal.setitimer(signal.ITIMER_REAL, 0)
assert hits > 400, hits
if run._lifetime.state.value != "loaded": run = EngineRunner.load(path)
assert np.allclose(run.infer(x), right) and np.allclose(run.submit(x).result(), right)
run.close()
print("well", threading.active_count() - threads_before)
"""
    assert_well(python(code, bundle), "well 0\n")
