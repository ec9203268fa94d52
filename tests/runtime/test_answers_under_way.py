"""Batches under way: in order, as many as the engine works on, and no more pictures held."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_bundles import tiny_model, write_bundle

from effnet_edge import EngineRunner, ImageError
from effnet_edge.pictures.ahead import in_order
from effnet_edge.pictures.sources import ReadPicture
from effnet_edge.runtime.answers import each_answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class LateEngine:
    """Answers a batch with its own pixels, but only when all its places are taken or asked for."""

    def __init__(self, parallelism: int) -> None:
        self.parallelism = parallelism
        self.begun: list[int] = []

    def submit(self, batch: np.ndarray, /) -> Future[np.ndarray]:
        self.begun.append(len(batch))
        future: Future[np.ndarray] = Future()
        future.set_result(batch[:, 0, 0].astype(np.float32))
        return future


def pictures(good: list[bool], drawn: list[int]) -> Iterator[ReadPicture]:
    for number, readable in enumerate(good):
        drawn.append(number)
        pixels = np.full((1, 1, 1), number, np.uint8)
        error = None if readable else ImageError(f"{number} is bad")
        yield ReadPicture(str(number), pixels if readable else None, error)


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_each_picture_has_its_answer_in_its_place(
    good: list[bool], batch_size: int, parallelism: int, at_once: bool
) -> None:
    drawn: list[int] = []
    engine = LateEngine(parallelism)
    found = each_answer(
        pictures(good, drawn),
        engine,
        lambda row, name: [(row.item(), name)],  # type: ignore[list-item,return-value]
        batch_size=batch_size,
        at_once=at_once,
    )
    held = batch_size * (1 if at_once else 1 + parallelism)
    for number, (name, answer) in enumerate(found):
        assert name == str(number)
        assert answer == [(number, name)] if good[number] else isinstance(answer, ImageError)
        first_of_batch = number - number % batch_size
        assert len(drawn) <= first_of_batch + held
    assert len(drawn) == len(good)
    assert sum(engine.begun) == sum(good)


@given(st.integers(0, 60))
def test_what_is_read_ahead_comes_in_order_and_is_never_far_ahead(count: int) -> None:
    begun: list[int] = []

    def read(number: int) -> int:
        begun.append(number)
        return -number

    for number, result in enumerate(in_order(read, range(count))):
        assert result == -number
        assert len(begun) <= number + 18


def test_an_error_comes_in_its_turn_and_ends_the_reading() -> None:
    reading = in_order(lambda number: 10 // number, [5, 2, 0, 1])
    assert [next(reading), next(reading)] == [2, 5]
    with pytest.raises(ZeroDivisionError):
        next(reading)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineRunner]:
    path = tmp_path_factory.mktemp("bundle") / "tiny"
    with EngineRunner.load(write_bundle(path, "openvino", tiny_model(batch="N"))) as opened:
        yield opened


def frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)


def test_a_generator_may_write_over_what_it_gave(run: EngineRunner, tmp_path: Path) -> None:
    """Its pictures, in memory or in a file, are read before it is asked for the next."""
    expected = [run.classify(frame(seed)) for seed in range(30)]

    def one_buffer() -> Iterator[np.ndarray]:
        buffer = np.empty((9, 9, 3), np.uint8)
        for seed in range(30):
            buffer[:] = frame(seed)
            yield buffer

    def one_file() -> Iterator[Path]:
        for seed in range(30):
            Image.fromarray(frame(seed)).save(tmp_path / "frame.png")
            yield tmp_path / "frame.png"

    for given_pictures in (one_buffer(), one_file()):
        found = run.classify(given_pictures)
        assert [each[0].index for each in found] == [each[0].index for each in expected]


@pytest.mark.parametrize("target", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("throughput", [False, True])
def test_a_list_of_files_has_the_answers_of_one_at_a_time(
    tmp_path: Path, target: str, throughput: bool
) -> None:
    bundle = write_bundle(tmp_path / "b", target, tiny_model())
    files = [tmp_path / f"{seed}.png" for seed in range(40)]
    for seed, file in enumerate(files):
        Image.fromarray(frame(seed)).save(file)
    with EngineRunner.load(bundle, throughput=throughput) as opened:
        assert opened.parallelism >= 1
        found = opened.classify(files)
        assert found == [opened.classify(file) for file in files]
        assert opened.classify([file.read_bytes() for file in files]) == found
