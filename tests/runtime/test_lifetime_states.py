"""Any order of loading, working, closing and forking, against a model of the states."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_backends import SummingBackend
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from once import AFRESH
from runner_answers import CPU_TARGETS, pixels, started
from tiny_bundles import tiny_model, truth, write_bundle

from effnet_edge.bundle import Bundle
from effnet_edge.errors import BackendError
from effnet_edge.runtime import EngineRunner

PATIENCE = 60
KINDS = st.sampled_from(["fake", *CPU_TARGETS])
SEEDS = st.integers(0, 3)


@lru_cache
def bundle_of(kind: str) -> Path:
    target = "onnxruntime" if kind == "fake" else kind
    return write_bundle(Path(tempfile.mkdtemp()) / kind, target, tiny_model(batch="N"))


@lru_cache
def answer_of(kind: str, seed: int) -> Any:
    batch = pixels(2, seed)
    return SummingBackend().infer(batch) if kind == "fake" else truth(tiny_model(), batch)


class Life(RuleBasedStateMachine):
    @initialize(kind=KINDS)
    def load(self, kind: str) -> None:
        self.kind, self.closed = kind, False
        self.futures: list[tuple[int, Future[Any]]] = []
        if kind == "fake":
            self.runner = EngineRunner(Bundle.load(bundle_of(kind)), SummingBackend())
        else:
            self.runner = EngineRunner.load(bundle_of(kind), threads=1)

    @precondition(lambda self: self.closed)
    @rule(kind=KINDS)
    def load_again(self, kind: str) -> None:
        self.check_futures()
        self.load(kind)

    @rule(seed=SEEDS)
    def infer(self, seed: int) -> None:
        self._told_or(lambda: self._check(seed, self.runner.infer(pixels(2, seed))))

    @rule(seed=SEEDS)
    def submit(self, seed: int) -> None:
        self._told_or(lambda: self.futures.append((seed, self.runner.submit(pixels(2, seed)))))

    @rule(seed=SEEDS)
    def submit_in_a_callback(self, seed: int) -> None:
        inner: Future[Any] = Future()

        def callback(_: object) -> None:
            try:
                inner.set_result(self.runner.submit(pixels(2, seed)).result(PATIENCE))
            except BaseException as error:
                inner.set_exception(error)

        def outer() -> None:
            self.runner.submit(pixels(1)).add_done_callback(callback)
            self._check(seed, inner.result(PATIENCE))

        self._told_or(outer)

    @rule(times=st.integers(1, 3))
    def close(self, times: int) -> None:
        for closing in [started(self.runner.close) for _ in range(times)]:
            closing.result(PATIENCE)
        self.closed = True

    @precondition(lambda self: not self.closed)
    @rule()
    def close_in_a_callback(self) -> None:
        self.runner.submit(pixels(1)).add_done_callback(lambda _: self.runner.close())
        self.close(1)

    @rule()
    def check_futures(self) -> None:
        for seed, future in self.futures:
            self._check(seed, future.result(PATIENCE))
        self.futures.clear()

    @rule()
    def fork(self) -> None:
        """The child may do nothing with the runner but close it."""
        child = os.fork()
        if not child:
            code = 1
            try:
                with pytest.raises(BackendError, match="before this process was forked"):
                    self.runner.infer(pixels(1))
                self.runner.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def teardown(self) -> None:
        self.check_futures()
        started(self.runner.close).result(PATIENCE)

    def _told_or(self, call: Any) -> None:
        if not self.closed:
            call()
            return
        with pytest.raises(BackendError, match="is closed"):
            call()

    def _check(self, seed: int, logits: Any) -> None:
        np.testing.assert_allclose(logits, answer_of(self.kind, seed), rtol=1e-4, atol=1e-4)


TestLife = Life.TestCase
TestLife.settings = settings(
    deadline=None, max_examples=40 if AFRESH in os.environ else 10, stateful_step_count=20
)
