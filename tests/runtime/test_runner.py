from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from gpu_or_fake import runs_for_real
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from runner_answers import FAILING_TARGETS, assert_close, expected, pixels
from tiny_bundles import CLASSES, LABELS, PREPROCESSING, SIDE, tiny_model, truth, write_bundle

from effnet_edge.bundle import Bundle
from effnet_edge.errors import BackendError, ImageError, UsageError
from effnet_edge.pictures.image import normalize, prepare
from effnet_edge.runtime import EngineRunner, Prediction

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

pytestmark = pytest.mark.usefixtures("gpu")

# Numbers


@settings(deadline=None)
@given(count=st.integers(0, 20), seed=st.integers(0, 3))
def test_any_number_of_images_gives_the_logits_of_the_onnx_standard(
    runner: EngineRunner, count: int, seed: int
) -> None:
    logits = runner.infer(pixels(count, seed))
    assert logits.dtype == np.float32
    assert logits.shape == (count, CLASSES)
    assert_close(logits, expected(count, seed))


@settings(deadline=None)
@given(count=st.integers(0, 20))
def test_a_float_bundle_takes_normalized_values_or_pixels(
    float_runner: EngineRunner, count: int
) -> None:
    values = normalize(pixels(count), PREPROCESSING)
    wanted = truth(tiny_model("float32"), values) if count else expected(0)
    assert_close(float_runner.infer(values), wanted)
    assert_close(float_runner.infer(pixels(count)), wanted)


def test_results_are_never_overwritten(runner: EngineRunner) -> None:
    first = runner.infer(pixels(1, seed=1))
    kept = first.copy()
    for seed in range(2, 6):
        runner.infer(pixels(1, seed))
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    assert_close(runner.infer(pixels(1, seed=1)), kept)


def test_arrays_in_any_memory_order_are_taken(runner: EngineRunner) -> None:
    batch = pixels(3)
    read_only = batch.copy()
    read_only.setflags(write=False)
    for same in (batch[::-1][::-1], np.asfortranarray(batch), np.repeat(batch, 2, 0)[::2]):
        assert_close(runner.infer(same), expected(3))
    assert_close(runner.infer(read_only), expected(3))
    assert_close(runner.infer(batch[:, :, :, ::-1][..., ::-1]), expected(3))


def test_the_input_is_left_alone(runner: EngineRunner) -> None:
    batch = pixels(5)
    runner.infer(batch)
    np.testing.assert_array_equal(batch, pixels(5))


def test_warmup_runs(runner: EngineRunner) -> None:
    runner.warmup(2)
    assert_close(runner.infer(pixels(1)), expected(1))


# Wrong input


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (pixels(1)[0], "add the batch axis"),
        (pixels(1)[:, :-1], "uint8 (1, 7, 8, 3)"),
        (pixels(1)[..., :1], "uint8 (1, 8, 8, 1)"),
        (pixels(1).transpose(0, 3, 1, 2), "uint8 (1, 3, 8, 8)"),
        (pixels(1).astype(np.float32), "float32 (1, 8, 8, 3)"),
        (pixels(1).astype(np.int64), "int64 (1, 8, 8, 3)"),
        (pixels(1)[None], "uint8 (1, 1, 8, 8, 3)"),
        (np.uint8(3), "uint8"),
        (np.zeros((), np.uint8), "uint8 ()"),
        (pixels(1).tolist(), "got list"),
        (None, "got NoneType"),
    ],
)
def test_wrong_input_says_what_is_taken_and_what_was_got(
    runner: EngineRunner, float_runner: EngineRunner, batch: Any, says: str
) -> None:
    for refusing in (runner, float_runner):
        for call in (refusing.infer, refusing.submit):
            with pytest.raises(UsageError) as caught:
                call(batch)
            text = str(caught.value)
            assert says in text
            assert "uint8 images (8, 8, 3) as one array (N, 8, 8, 3)" in text
            assert "\n" not in text


def test_normalized_values_are_only_for_float_bundles(
    runner: EngineRunner, float_runner: EngineRunner
) -> None:
    values = normalize(pixels(1), PREPROCESSING)
    float_runner.infer(values)
    with pytest.raises(UsageError, match="got float32"):
        runner.infer(values)


def test_a_single_normalized_image_is_hinted_too(float_runner: EngineRunner) -> None:
    with pytest.raises(UsageError, match="add the batch axis"):
        float_runner.infer(normalize(pixels(1), PREPROCESSING)[0])


# Classifying


def test_classify_gives_the_softmax_of_the_logits_best_first(runner: EngineRunner) -> None:
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 60, 3), np.uint8))
    top = runner.classify(image, top=3)
    logits = truth(tiny_model(), prepare(image, PREPROCESSING)[None])[0].astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum()
    order = [int(i) for i in np.argsort(-shares)[:3]]
    assert [p.index for p in top] == order
    assert [p.label for p in top] == [LABELS[i].name for i in order]
    assert [p.wnid for p in top] == [LABELS[i].wnid for i in order]
    np.testing.assert_allclose([p.probability for p in top], shares[order], rtol=1e-3)


def test_all_probabilities_sum_to_one_and_top_is_clipped(runner: EngineRunner) -> None:
    top = runner.classify(pixels(1)[0], top=100)
    assert len(top) == CLASSES
    assert sum(p.probability for p in top) == pytest.approx(1)


def test_a_list_of_images_gives_a_list_of_lists(runner: EngineRunner, tmp_path: Path) -> None:
    paths = []
    for i, image in enumerate(pixels(11)):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    many = runner.classify(paths)
    assert len(many) == 11
    for path, top in zip(paths, many, strict=True):
        alone = runner.classify(str(path))
        assert [p.index for p in alone] == [p.index for p in top]
        assert alone[0].probability == pytest.approx(top[0].probability, rel=1e-4)
    assert runner.classify([]) == []


def test_without_labels_classes_go_by_their_number(tmp_path: Path, target: str) -> None:
    write_bundle(tmp_path / "b", target, tiny_model(), labels=None)
    with EngineRunner.load(tmp_path / "b") as run:
        best = run.classify(pixels(1)[0], top=1)[0]
    assert best == Prediction(best.index, f"class {best.index}", None, best.probability)


def test_top_below_one_and_bad_pictures_are_refused(runner: EngineRunner, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="top 0"):
        runner.classify(pixels(1)[0], top=0)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        runner.classify(tmp_path / "broken.jpg")


# Many threads


def test_many_threads_get_the_answers_of_one(runner: EngineRunner) -> None:
    sizes = [1 + i % 9 for i in range(60)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: runner.infer(pixels(sizes[i], i)), range(60)))
    for i, logits in enumerate(answers):
        assert_close(logits, expected(sizes[i], i))


def test_submitted_batches_come_back_each_to_its_future(runner: EngineRunner) -> None:
    buffer = np.empty((3, SIDE, SIDE, 3), np.uint8)
    futures = []
    for seed in range(30):
        buffer[:] = pixels(3, seed)
        futures.append(runner.submit(buffer))
    for seed, future in enumerate(futures):
        assert_close(future.result(60), expected(3, seed))


def test_submitting_from_many_threads(runner: EngineRunner) -> None:
    with ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(lambda i: runner.submit(pixels(2, i)), range(40)))
    for seed, future in enumerate(futures):
        assert_close(future.result(60), expected(2, seed))


@pytest.mark.parametrize("target", FAILING_TARGETS)
def test_an_engine_that_fails_says_so_at_once_and_later(bundles: Path, target: str) -> None:
    if target == "tensorrt" and runs_for_real():
        pytest.skip("a GPU does not fail to order")
    with EngineRunner.load(bundles / f"{target}-failing") as run:
        for _ in range(3):
            with pytest.raises(BackendError, match="failed on a batch") as caught:
                run.infer(pixels(1))
            assert "\n" not in str(caught.value)
        futures = [run.submit(pixels(1)) for _ in range(20)]
        for future in futures:
            with pytest.raises(BackendError, match="failed on a batch"):
                future.result(60)


class RecordingBackend:
    """An engine that keeps what it was given, and gives the same logits for every image."""

    device = "FAKE"
    parallelism = 1
    execution_precision = "FP32"
    takes_device_arrays = False

    def __init__(self, logits: list[float]) -> None:
        self.logits = logits
        self.given: list[npt.NDArray[np.uint8 | np.float32]] = []

    def infer(self, batch: npt.NDArray[np.uint8 | np.float32]) -> npt.NDArray[np.float32]:
        self.given.append(batch)
        return np.tile(np.array(self.logits, np.float32), (len(batch), 1))

    def close(self) -> None:
        """Nothing to release."""


def test_an_engine_gets_the_callers_memory_where_it_can_and_always_contiguous(
    bundles: Path,
) -> None:
    backend = RecordingBackend([0] * CLASSES)
    run = EngineRunner(Bundle.load(bundles / "openvino-dynamic"), backend)
    batch = pixels(3)
    run.infer(batch)
    run.infer(batch[:, ::-1])
    assert np.shares_memory(backend.given[0], batch)
    assert all(given.flags.c_contiguous for given in backend.given)
    np.testing.assert_array_equal(backend.given[1], batch[:, ::-1])


def test_tensors_and_a_list_of_one_image_are_the_callers_memory_too(bundles: Path) -> None:
    backend = RecordingBackend([0] * CLASSES)
    run = EngineRunner(Bundle.load(bundles / "openvino-dynamic"), backend)
    batch = pixels(3)
    run.infer(torch.from_numpy(batch))
    run.infer([batch[1]])
    assert [len(given) for given in backend.given] == [3, 1]
    assert all(np.shares_memory(given, batch) for given in backend.given)


def test_a_large_batch_is_split_into_the_engines_largest(bundles: Path) -> None:
    backend = RecordingBackend([0] * CLASSES)
    EngineRunner(Bundle.load(bundles / "openvino-dynamic"), backend).infer(pixels(20))
    assert [len(given) for given in backend.given] == [8, 8, 4]


def test_probabilities_of_huge_logits_are_finite(bundles: Path) -> None:
    backend = RecordingBackend([1e4, -1e4, 1e4, 0, 0])
    run = EngineRunner(Bundle.load(bundles / "openvino-one"), backend)
    top = run.classify(pixels(1)[0], top=3)
    assert [(p.index, p.probability) for p in top] == [(0, 0.5), (2, 0.5), (1, 0.0)]
