"""INT8 bundles with a dynamic batch give each image its answer, however many come together."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundles import SIDE, quantized_model, write_bundle

from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.openvino_engines import CompiledEngine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Runners = tuple[EngineRunner, EngineRunner]


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8")
    for target in ("openvino", "onnxruntime"):
        for name, batch in (("one", 1), ("dynamic", "N")):
            models = tmp_path_factory.mktemp("models")
            model = quantized_model(models, batch)
            write_bundle(path / f"{target}-{name}", target, model, precision="int8")
    return path


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def runners(request: pytest.FixtureRequest, folder: Path) -> Iterator[Runners]:
    with (
        EngineRunner.load(folder / f"{request.param}-dynamic") as dynamic,
        EngineRunner.load(folder / f"{request.param}-one") as one,
    ):
        yield dynamic, one


@settings(deadline=None)
@given(count=st.integers(0, 20), seed=st.integers(0, 5))
def test_every_batch_size_gives_the_answers_of_static_single_images(
    runners: Runners, count: int, seed: int
) -> None:
    dynamic, one = runners
    images = pixels(count, seed)

    assert np.allclose(dynamic.infer(images), one.infer(images), rtol=1e-3, atol=1e-3)


@pytest.fixture
def wrong_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What OpenVINO's AVX-512 kernels do to one image of a dynamic INT8 model, on any machine."""
    run = CompiledEngine.infer

    def infer(self: CompiledEngine, batch: np.ndarray) -> np.ndarray:
        dynamic = self.compiled.input(0).get_partial_shape()[0].is_dynamic
        logits = run(self, batch)
        return -logits if dynamic and len(batch) == 1 else logits

    monkeypatch.setattr(CompiledEngine, "infer", infer)


@pytest.mark.usefixtures("wrong_alone")
def test_a_single_image_is_right_where_the_dynamic_engine_gets_it_wrong(folder: Path) -> None:
    images = pixels(17)
    with (
        EngineRunner.load(folder / "openvino-dynamic") as dynamic,
        EngineRunner.load(folder / "openvino-one") as one,
    ):
        wanted = one.infer(images)
        dynamic.warmup()
        alone = np.concatenate([dynamic.infer(image[None]) for image in images])
        # 17 images are two of the engine's batches of 8 and a single one.
        together = dynamic.infer(images)

    assert np.allclose(alone, wanted, rtol=1e-3, atol=1e-3)
    assert np.allclose(together, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("wrong_alone")
def test_single_images_from_many_threads_share_one_engine(folder: Path) -> None:
    images = pixels(8)
    answers: dict[int, np.ndarray] = {}
    with EngineRunner.load(folder / "openvino-dynamic") as dynamic:

        def run(index: int) -> None:
            answers[index] = dynamic.infer(images[index : index + 1])[0]

        threads = [threading.Thread(target=run, args=(index,)) for index in range(len(images))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wanted = dynamic.infer(images)

    assert np.allclose([answers[index] for index in range(8)], wanted, rtol=1e-3, atol=1e-3)
