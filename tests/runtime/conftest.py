from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import pytest
from gpu_or_fake import fake_nvidia, gpu_or_fake
from later import quick
from runner_answers import BATCHES, CPU_TARGETS, FAILING_TARGETS, INT8_TARGETS, TARGETS
from tiny_bundles import failing_model, quantized_model, tiny_model, write_bundle

from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fake_tensorrt import FakeTensorRt
    from tensorrt_runs import Fake


@pytest.fixture
def fake() -> Iterator[Fake]:
    """The scripted CUDA and TensorRT, in place of any that are here."""
    with fake_nvidia() as modules:
        yield modules


@pytest.fixture
def interrupted_cleanup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass over interrupts that hit a finalizer, a callback of the collector, or a thread's end.

    An asynchronous exception lands wherever the thread is, in hypothesis's own callback as well,
    where nobody can catch it: Python reports it as unraisable, and pytest makes that a failure. A
    thread that one ends is reported by pytest in so many lines that another one lands in these.
    """
    report = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            report(unraisable)

    monkeypatch.setattr(sys, "unraisablehook", hook)
    report_thread = threading.excepthook

    def thread_hook(ended: threading.ExceptHookArgs) -> None:
        if not issubclass(ended.exc_type, KeyboardInterrupt):
            report_thread(ended)

    monkeypatch.setattr(threading, "excepthook", thread_hook)


@pytest.fixture
def library(fake: Fake) -> FakeTensorRt:
    return fake[1]


@pytest.fixture(scope="module")
def gpu() -> Iterator[None]:
    """TensorRT and a GPU: the real ones where they are, a fake for the bookkeeping elsewhere."""
    with gpu_or_fake():
        yield


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, gpu: None) -> Path:  # noqa: ARG001
    """One folder of bundles: <target>-<batch>, <target>-float and <target>-int8."""
    folder = tmp_path_factory.mktemp("bundles")
    int8 = quantized_model(tmp_path_factory.mktemp("models"))
    for target in TARGETS:
        for name, batch in BATCHES.items():
            write_bundle(folder / f"{target}-{name}", target, tiny_model(batch=batch))
        write_bundle(folder / f"{target}-float", target, tiny_model("float32", "N"))
        if target in INT8_TARGETS:
            write_bundle(folder / f"{target}-int8", target, int8, precision="int8")
        if target not in FAILING_TARGETS:
            continue
        failing = tiny_model() if target == "tensorrt" else failing_model()
        write_bundle(folder / f"{target}-failing", target, failing, faulty=True)
    return folder


@pytest.fixture(params=CPU_TARGETS)
def cpu_target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


RUNNERS = [f"{target}-{batch}" for target in TARGETS for batch in BATCHES]
# How a batch of one size is filled up is the runner's own doing, whatever the engine is.
FILLED_UP = [name for name in RUNNERS if name.endswith("-four") and name != "onnxruntime-four"]


@pytest.fixture(
    scope="module", params=quick(set(RUNNERS) - set(FILLED_UP), RUNNERS, others="sample")
)
def runner(request: pytest.FixtureRequest, bundles: Path) -> Iterator[EngineRunner]:
    with EngineRunner.load(bundles / request.param) as opened:
        yield opened


@pytest.fixture(scope="module", params=TARGETS)
def float_runner(request: pytest.FixtureRequest, bundles: Path) -> Iterator[EngineRunner]:
    with EngineRunner.load(bundles / f"{request.param}-float") as opened:
        yield opened
