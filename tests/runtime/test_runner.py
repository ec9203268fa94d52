from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from gpu_or_fake import gpu_or_fake, runs_for_real
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_bundles import (
    CLASSES,
    LABELS,
    PREPROCESSING,
    SIDE,
    failing_model,
    quantized_model,
    tiny_model,
    truth,
    write_bundle,
)

from effnet_edge.bundle import BatchRange, Bundle, BundleWriter
from effnet_edge.errors import BackendError, BundleError, EffnetEdgeError, ImageError, UsageError
from effnet_edge.pictures.image import normalize, prepare
from effnet_edge.runtime import EngineRunner, Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

CPU_TARGETS = ["openvino", "onnxruntime"]
TARGETS = [*CPU_TARGETS, "tensorrt"]
BATCHES: dict[str, int | str] = {"one": 1, "four": 4, "dynamic": "N"}


def pixels(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


@lru_cache
def expected(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    if count == 0:
        return np.empty((0, CLASSES), np.float32)
    return truth(tiny_model(), pixels(count, seed))


def assert_close(got: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]) -> None:
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module", autouse=True)
def gpu() -> Iterator[None]:
    """TensorRT and a GPU: the real ones where they are, a fake for the bookkeeping elsewhere."""
    with gpu_or_fake():
        yield


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, gpu: None) -> Path:  # noqa: ARG001
    """One folder of bundles: <target>-<batch>, <target>-float and <target>-int8."""
    folder = tmp_path_factory.mktemp("bundles")
    folder_of_models = tmp_path_factory.mktemp("models")
    for target in TARGETS:
        for name, batch in BATCHES.items():
            write_bundle(folder / f"{target}-{name}", target, tiny_model(batch=batch))
        write_bundle(folder / f"{target}-float", target, tiny_model("float32", "N"))
        int8 = quantized_model(folder_of_models)
        write_bundle(folder / f"{target}-int8", target, int8, precision="int8")
        failing = tiny_model() if target == "tensorrt" else failing_model()
        write_bundle(folder / f"{target}-failing", target, failing, faulty=True)
    return folder


@pytest.fixture(params=CPU_TARGETS)
def cpu_target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=[f"{t}-{b}" for t in TARGETS for b in BATCHES])
def runner(request: pytest.FixtureRequest, bundles: Path) -> Iterator[EngineRunner]:
    with EngineRunner.load(bundles / request.param) as opened:
        yield opened


@pytest.fixture(scope="module", params=TARGETS)
def float_runner(request: pytest.FixtureRequest, bundles: Path) -> Iterator[EngineRunner]:
    with EngineRunner.load(bundles / f"{request.param}-float") as opened:
        yield opened


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


class FakeBackend:
    """An engine that runs only when told to."""

    device = "FAKE"
    parallelism = 2
    execution_precision = "FP32"
    takes_device_arrays = False

    def __init__(self) -> None:
        self.go = threading.Event()
        self.running = threading.Semaphore(0)
        self.most_at_once = 0
        self.closed = 0
        self._now = 0
        self._lock = threading.Lock()

    def infer(self, batch: npt.NDArray[np.uint8 | np.float32]) -> npt.NDArray[np.float32]:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        self.running.release()
        assert self.go.wait(60)
        assert not self.closed
        with self._lock:
            self._now -= 1
        return np.zeros((len(batch), CLASSES), np.float32)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def fake(bundles: Path) -> tuple[FakeBackend, EngineRunner]:
    backend = FakeBackend()
    return backend, EngineRunner(Bundle.load(bundles / "openvino-one"), backend)


def started(function: Any) -> Future[Any]:
    """Run in a thread of its own."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


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


def test_a_large_batch_is_split_into_the_engines_largest(bundles: Path) -> None:
    backend = RecordingBackend([0] * CLASSES)
    EngineRunner(Bundle.load(bundles / "openvino-dynamic"), backend).infer(pixels(20))
    assert [len(given) for given in backend.given] == [8, 8, 4]


def test_probabilities_of_huge_logits_are_finite(bundles: Path) -> None:
    backend = RecordingBackend([1e4, -1e4, 1e4, 0, 0])
    run = EngineRunner(Bundle.load(bundles / "openvino-one"), backend)
    top = run.classify(pixels(1)[0], top=3)
    assert [(p.index, p.probability) for p in top] == [(0, 0.5), (2, 0.5), (1, 0.0)]


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


# Precision


def test_an_fp32_bundle_runs_in_fp32_unless_asked_otherwise(bundles: Path, target: str) -> None:
    for precision in (None, "fp32"):
        with EngineRunner.load(bundles / f"{target}-one", precision=precision) as run:
            assert run.execution_precision == "FP32"


def test_an_int8_bundle_runs_in_int8(bundles: Path, target: str) -> None:
    with EngineRunner.load(bundles / f"{target}-int8") as run:
        assert run.execution_precision == "INT8"
        np.testing.assert_allclose(run.infer(pixels(1)), expected(1), rtol=0.1, atol=0.1)


def test_asking_for_bf16_is_refused_or_reported_and_visible_in_the_numbers(bundles: Path) -> None:
    try:
        run = EngineRunner.load(bundles / "openvino-four", precision="bf16")
    except UsageError as error:
        refusal = str(error)
    else:
        refusal = None
    if refusal is not None:
        assert "precision 'bf16'" in refusal
        return
    with run:
        errors = np.abs(run.infer(pixels(4)) - expected(4)).max()
        assert (run.execution_precision == "BF16") == (errors > 1e-4)


def test_the_plugins_own_choice_is_left_to_fp16_bundles(tmp_path: Path) -> None:
    import openvino

    write_bundle(tmp_path / "b", "openvino", tiny_model(), precision="fp16")
    with EngineRunner.load(tmp_path / "b") as run:
        capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        natural = {"FP16", "BF16"} & set(capabilities) or {"FP32"}
        assert run.execution_precision in natural


def test_a_precision_that_this_processor_lacks_is_refused(bundles: Path) -> None:
    import openvino

    if "FP16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU runs FP16")
    with pytest.raises(UsageError, match="'fp16': OpenVINO's CPU here would run (f32|bf16)"):
        EngineRunner.load(bundles / "openvino-one", precision="fp16")


# Loading


@pytest.mark.parametrize(
    "options",
    [{"threads": 1}, {"threads": 2}, {"device": "CPU"}, {"device": "cpu"}],
)
def test_options_that_every_backend_takes(
    bundles: Path, cpu_target: str, options: dict[str, Any]
) -> None:
    with EngineRunner.load(bundles / f"{cpu_target}-dynamic", **options) as run:
        assert_close(run.infer(pixels(10)), expected(10))
        assert run.device == "CPU"


def test_openvino_in_throughput_mode(bundles: Path) -> None:
    with EngineRunner.load(bundles / "openvino-one", throughput=True) as run:
        futures = [run.submit(pixels(1, seed)) for seed in range(20)]
        for seed, future in enumerate(futures):
            assert_close(future.result(60), expected(1, seed))


def test_openvino_may_choose_the_device(bundles: Path) -> None:
    with EngineRunner.load(bundles / "openvino-one", device="AUTO") as run:
        assert_close(run.infer(pixels(2)), expected(2))
        assert run.execution_precision in ("FP32", "FP16")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "TPU"}, "choose from"),
        ({"device": "CPU.7"}, "choose from"),
        ({"device": ""}, "choose from"),
        ({"threads": 0}, "threads 0"),
        ({"threads": -1}, "threads -1"),
        ({"precision": "int4"}, "precision 'int4'"),
    ],
)
def test_bad_options_are_one_line(
    bundles: Path, cpu_target: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        EngineRunner.load(bundles / f"{cpu_target}-one", **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    if "device" in options:
        assert "CPU" in str(caught.value)


@pytest.mark.parametrize("options", [{"throughput": True}, {"precision": "bf16"}])
def test_onnxruntime_refuses_what_it_cannot_do(bundles: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="ONNX Runtime"):
        EngineRunner.load(bundles / "onnxruntime-one", **options)


def test_an_altered_model_is_never_loaded(tmp_path: Path, target: str) -> None:
    path = write_bundle(tmp_path / "b", target, tiny_model())
    victim = path / ("model.bin" if target == "openvino" else "model.onnx")
    data = bytearray(victim.read_bytes())
    data[-10] ^= 1
    victim.write_bytes(data)
    with pytest.raises(BundleError, match="is not the file that was exported"):
        EngineRunner.load(path)


def test_a_model_that_the_library_refuses_names_file_and_versions(
    tmp_path: Path, cpu_target: str
) -> None:
    file = "model.xml" if cpu_target == "openvino" else "model.onnx"
    good = Bundle.load(write_bundle(tmp_path / "good", cpu_target, tiny_model())).manifest
    with BundleWriter(tmp_path / "bad") as writer:
        (writer.staging / file).write_bytes(b"<net version='99'></net>")
        writer.commit(replace(good, tools={cpu_target: "2025.0"}), LABELS)
    with pytest.raises(BackendError, match=file) as caught:
        EngineRunner.load(tmp_path / "bad")
    assert "2025.0, here" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_library_says_how_to_install_it(
    bundles: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, target, None)
    with pytest.raises(BackendError, match=rf"pip install 'effnet-edge\[{target}\]'"):
        EngineRunner.load(bundles / f"{target}-one")


def test_the_runner_knows_its_bundle(runner: EngineRunner, bundles: Path) -> None:
    assert runner.bundle.path.parent == bundles
    assert runner.name == runner.bundle.path.name
    assert runner.manifest == runner.bundle.manifest
    assert runner.labels == tuple(LABELS)
    assert isinstance(runner.manifest.batch, BatchRange)


def test_every_refusal_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(EffnetEdgeError, match="no such bundle"):
        EngineRunner.load(tmp_path / "nothing")


RUN_ALONE = """
import sys
import numpy as np
from effnet_edge import EngineRunner
with EngineRunner.load(sys.argv[1]) as run:
    run.submit(np.zeros((1, 8, 8, 3), np.uint8)).result()
    run.classify(np.zeros((9, 9, 3), np.uint8))
    run.execution_precision
print({"torch", "onnx", "onnxruntime", "openvino", "tensorrt"} & set(sys.modules))
"""


def test_a_runner_loads_its_own_library_and_no_other(bundles: Path, cpu_target: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALONE, bundles / f"{cpu_target}-one"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout == f"{{'{cpu_target}'}}\n", done.stderr
