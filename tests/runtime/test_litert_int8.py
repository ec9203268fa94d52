"""A bundle for LiteRT in INT8 runs as every other: any number of pictures, threads, `submit`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from integer_models import model_of_integers
from runner_answers import pixels
from tiny_bundles import truth, write_bundle

from effnet_edge.bench import bench_models
from effnet_edge.bundle import Bundle
from effnet_edge.errors import UsageError
from effnet_edge.runtime import EngineRunner

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

BATCHES = [1, 4, "N"]


@pytest.fixture(params=BATCHES, scope="module")
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = model_of_integers(request.param, equalized=True)
    return write_bundle(tmp_path_factory.mktemp("int8") / "b", "litert", model, precision="int8")


def answers(path: Path, count: int, threads: int | None = None) -> npt.NDArray[np.float32]:
    with EngineRunner.load(path, threads=threads) as run:
        return run.infer(pixels(count))


def test_it_answers_as_the_onnx_standard(bundle: Path) -> None:
    with EngineRunner.load(bundle) as run:
        assert run.execution_precision == "INT8"
        expected = truth(model_of_integers(equalized=True), pixels(9))
        # LiteRT rounds halves its own way: a step of one of 36 values here and there.
        np.testing.assert_allclose(run.infer(pixels(9)), expected, atol=0.02)
        assert np.ptp(expected, axis=0).min() > 0.05


def test_batches_and_threads_change_nothing(bundle: Path) -> None:
    expected = answers(bundle, 9)
    for count in (1, 3, 8):
        np.testing.assert_allclose(answers(bundle, count), expected[:count], rtol=1e-5, atol=1e-6)
    for threads in (1, 2, 3):
        again = answers(bundle, 9, threads)
        np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-6)


def test_submitted_and_called_from_threads(bundle: Path) -> None:
    expected = answers(bundle, 12)
    with EngineRunner.load(bundle) as run, ThreadPoolExecutor(4) as pool:
        submitted = [run.submit(pixels(12)[start : start + 3]) for start in range(0, 12, 3)]
        called = list(pool.map(run.infer, np.split(pixels(12), 6)))
        found = np.concatenate([each.result() for each in submitted])
    for each in (found, np.concatenate(called)):
        np.testing.assert_allclose(each, expected, rtol=1e-5, atol=1e-6)


def test_it_is_timed_and_another_precision_is_refused(bundle: Path) -> None:
    (row,) = bench_models([str(bundle)], batch=2, runs=2, threads=1)
    assert (row.execution_precision, row.timing.runs) == ("INT8", 2)
    with pytest.raises(UsageError, match="runs this model in INT8"):
        EngineRunner.load(bundle, precision="fp16")
    assert Bundle.load(bundle).manifest.precision == "int8"
