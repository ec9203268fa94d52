"""Served models as candidates of `parity` and `bench`, by the real commands; a scripted server."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
from later import quick
from real_commands import run_command
from scripted_server import Script, serving
from tiny_bundles import CLASSES, SIDE, tiny_model, write_bundle

from effnet_edge import EngineRunner
from effnet_edge.bundle import BatchRange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt
    import onnx
    from scripted_server import Handler

UINT8_NHWC = [-1, SIDE, SIDE, 3]
FLOAT_NCHW = [-1, 3, SIDE, SIDE]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny", "onnxruntime", tiny_model(batch="N"))


@pytest.fixture
def answers(bundle: Path) -> Iterator[Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]]:
    with EngineRunner.load(bundle, threads=1) as runner:
        yield runner.infer


def told_hash(bundle: Path) -> dict[str, object]:
    sha256 = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    return {"parameters": {"effnet_edge_manifest_sha256": {"string_value": sha256}}}


def compared(address: str, *options: object, cwd: Path, code: int = 0) -> dict[str, object]:
    completed = run_command("parity", address, *options, "--json", "--limit", 20, cwd=cwd)
    assert completed.returncode == code, completed.stderr
    document: dict[str, object] = json.loads(completed.stdout)
    return document


@pytest.mark.usefixtures("bundle")
@pytest.mark.parametrize("extensions", [(), ("binary_tensor_data", "model_configuration")])
def test_a_served_bundle_is_the_same_model(
    answers: Callable[..., object], tmp_path: Path, extensions: tuple[str, ...]
) -> None:
    script = Script(answers, UINT8_NHWC, extensions=extensions, config={"max_batch_size": 6})
    with serving(script) as address:
        document = compared(address, "--reference", "tiny", "--min-sqnr", 100, cwd=tmp_path)
    (candidate,) = document["candidates"]
    assert document["passed"] is True
    assert (candidate["candidate"], candidate["sqnr_db"]) == (address, "Infinity")
    (file,) = document["files"]
    form = "binary tensors over HTTP" if extensions else "JSON over HTTP"
    most = "up to 6" if extensions else "any number of"
    assert file["about"] == [f"is served by scripted 1 (python): {form}, {most} pictures a request"]
    assert file["input"] == "uint8 NHWC (N, 8, 8, 3), pixels of 0..255"
    sizes = [each["size"] for each in candidate["batch_sizes"]]
    assert sizes == ([1, 3, 5, 6, 7, 8] if extensions else [1, 3, 5, 7, 8, 9])
    assert max(script.batches) == (6 if extensions else 9)
    assert candidate["at_once"]["worst_sqnr_db"] == "Infinity"
    assert candidate["at_once"]["clients"] == 16


@pytest.mark.sample
@pytest.mark.usefixtures("bundle")
def test_a_servers_own_answers_are_never_kept(
    answers: Callable[..., object], tmp_path: Path
) -> None:
    with serving(Script(answers, UINT8_NHWC)) as address:
        options = ("--reference", "tiny", "--answers", "kept", "--jsonl", "lines")
        compared(address, *options, cwd=tmp_path)
        lines = (tmp_path / "lines").read_text()
        compared(address, *options, "--resume", cwd=tmp_path)
        assert (tmp_path / "lines").read_text() == lines
        assert [each.name.split("-")[0] for each in (tmp_path / "kept").iterdir()] == ["tiny"]

        options = ("--reference", address, "--answers", "other")
        refused = run_command("parity", "tiny", *options, cwd=tmp_path)
    assert refused.returncode == 2
    assert f"--answers: the answers of {address} are not kept" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_what_the_bundle_promises_is_asked_of_the_server(
    answers: Callable[..., object], tmp_path: Path
) -> None:
    promised = BatchRange(2, 5, 12)
    own = write_bundle(tmp_path / "promising", "onnxruntime", tiny_model(batch="N"), batch=promised)

    def only_small(batch: npt.NDArray[np.uint8]) -> object:
        rows = answers(batch)
        return rows * (-1 if len(batch) == promised.maximum else 1)

    script = Script(only_small, UINT8_NHWC, config=told_hash(own))
    with serving(script) as address:
        document = compared(address, "--reference", own, cwd=tmp_path, code=1)
    (candidate,) = document["candidates"]
    assert {each["size"] for each in candidate["batch_sizes"]} >= {1, 2, 5, 12, 13}
    told = [re.match(r"at batch (\d+): picture \d+ of", each) for each in candidate["failures"]]
    # What is beyond the largest batch is asked in parts, of which one is just as large.
    assert [each and each[1] for each in told] == ["12", "13"]


def test_answers_that_are_mixed_up_among_clients_are_found(
    bundle: Path, answers: Callable[..., npt.NDArray[np.float32]], tmp_path: Path
) -> None:
    others: list[npt.NDArray[np.float32]] = []
    lock = threading.Lock()

    def mixed_up(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        rows = answers(batch)
        with lock:
            others.append(rows)
        time.sleep(0.05 if len(batch) == 1 else 0)
        with lock:
            # Where another client's answer came meanwhile, that one is given.
            return others[-1] if len(others[-1]) == len(rows) else rows

    with serving(Script(mixed_up, UINT8_NHWC)) as address:
        document = compared(address, "--reference", bundle, cwd=tmp_path, code=1)
    (candidate,) = document["candidates"]
    (failure,) = candidate["failures"]
    assert re.match(r"asked by 16 clients at once, it answers picture \d+ otherwise", failure)
    assert candidate["at_once"]["failures"] == [failure]
    assert candidate["sqnr_db"] == "Infinity"


def test_normalized_floats_and_a_fixed_batch(tmp_path: Path) -> None:
    model = tiny_model("float32", batch=4)
    fixed = write_bundle(tmp_path / "fixed", "onnxruntime", model)
    session = _session(model)
    script = Script(session, [4, *FLOAT_NCHW[1:]], "FP32")
    with serving(script) as address:
        document = compared(address, "--reference", "fixed", "--min-sqnr", 90, cwd=tmp_path)
    assert fixed.exists()
    assert set(script.batches) == {4}
    (file,) = document["files"]
    assert file["input"] == "float32 NCHW (N, 3, 8, 8), normalized pixels"
    assert "just 4 pictures a request" in file["about"][0]


def _session(model: onnx.ModelProto) -> Callable[[npt.NDArray[np.float32]], object]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return lambda batch: session.run(None, {"pixels": batch})[0]


def test_shares_of_one_are_known_for_a_softmax(
    bundle: Path, answers: Callable[..., npt.NDArray[np.float32]], tmp_path: Path
) -> None:
    def softmax(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        raised = np.exp(answers(batch) - answers(batch).max(axis=1, keepdims=True))
        shares: npt.NDArray[np.float32] = raised / raised.sum(axis=1, keepdims=True)
        return shares

    with serving(Script(softmax, UINT8_NHWC)) as address:
        document = compared(address, "--reference", "tiny", "--max-kl", 1e-6, cwd=tmp_path)
    assert document["as_probabilities"] is True
    assert document["files"][0]["ending"] == "softmax"
    assert bundle.exists()


def test_the_bundle_behind_it_is_found_by_its_hash(
    bundle: Path, answers: Callable[..., object], tmp_path: Path
) -> None:
    other = write_bundle(tmp_path / "other", "onnxruntime", tiny_model("float32", batch="N"))
    script = Script(answers, UINT8_NHWC, config=told_hash(bundle))
    with serving(script) as address:
        document = compared(address, "--reference", "other", "--min-sqnr", 30, cwd=tmp_path, code=1)
        (tmp_path / "empty").mkdir()
        far = compared(address, "--reference", other, cwd=tmp_path / "empty")
    short = told_hash(bundle)["parameters"]["effnet_edge_manifest_sha256"]["string_value"][:12]
    told = f"says that it is from the bundle tiny (manifest.json's SHA-256 {short}…)"
    assert document["files"][0]["about"][1] == told
    assert far["files"][0]["about"][1] == (
        f"says that it is not from {other}, but from a bundle of manifest.json's SHA-256 {short}…"
    )


@pytest.mark.sample
def test_without_a_reference_it_is_compared_with_the_network_of_the_bundle_that_is_found(
    bundle: Path, answers: Callable[..., object], tmp_path: Path
) -> None:
    with serving(Script(answers, UINT8_NHWC, config=told_hash(bundle))) as address:
        completed = run_command("parity", address, cwd=tmp_path)
    # Which the tiny one has not.
    assert completed.returncode == 2
    assert "the checkpoint that the bundle was made from is not at made up" in completed.stderr


# Amid the pictures, and amid the batch sizes.
@pytest.mark.parametrize("sound", quick([2], [2, 9], "sample"))
def test_a_server_that_dies_midway_leaves_no_report(
    bundle: Path, answers: Callable[..., object], tmp_path: Path, sound: int
) -> None:
    def gone(handler: Handler) -> None:
        handler.close_connection = True

    script = Script(answers, UINT8_NHWC, infer=gone, sound=sound)
    with serving(script) as address:
        options = ("--reference", bundle, "--limit", 20, "--report", "page.html", "--quiet")
        completed = run_command("parity", address, *options, cwd=tmp_path)
    assert (completed.returncode, completed.stdout) == (1, "")
    assert completed.stderr == (
        f"effnet-edge: error: {address}: the server closed the connection before it had answered\n"
    )
    assert not list(tmp_path.glob("page*"))


def test_nan_is_no_answer(
    bundle: Path, answers: Callable[..., npt.NDArray[np.float32]], tmp_path: Path
) -> None:
    def not_a_number(batch: npt.NDArray[np.uint8]) -> object:
        rows = answers(batch).copy()
        rows[-1] = np.nan
        return rows

    with serving(Script(not_a_number, UINT8_NHWC)) as address:
        completed = run_command("parity", address, "--reference", bundle, cwd=tmp_path)
    assert (completed.returncode, completed.stdout) == (1, "")
    first, error = completed.stderr.splitlines()
    assert first == "opening the models"
    assert f"{address}: its answer to picture 4 of 4 has a NaN" in error


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("ADDRESS", "--layers"), "--layers looks into a model, and a server gives answers only"),
        (("tiny", "--timeout", 5), "--timeout 5 goes with a served model: there is none"),
        (("tiny", "--tensors", "json"), "--tensors json goes with a served model: there is none"),
        (("https://127.0.0.1:1/a",), "https:// is not spoken here"),
        (("http://127.0.0.1:1",), "give http://HOST:PORT/MODEL"),
    ],
)
def test_what_does_nothing_is_refused(
    bundle: Path, tmp_path: Path, options: tuple[object, ...], told: str
) -> None:
    named = ["http://127.0.0.1:1/tiny" if each == "ADDRESS" else each for each in options]
    completed = run_command("parity", *named, "--reference", bundle, cwd=tmp_path)
    assert completed.returncode == 2, completed.stderr
    assert told in completed.stderr


def test_options_of_a_network_do_not_go_with_the_bundle_that_is_found(
    bundle: Path, answers: Callable[..., object], tmp_path: Path
) -> None:
    with serving(Script(answers, UINT8_NHWC, config=told_hash(bundle))) as address:
        options = ("--reference", "tiny/model.onnx", "--resolution", 64)
        completed = run_command("parity", address, *options, cwd=tmp_path)
    assert completed.returncode == 2
    assert "tell a network, and so does the bundle tiny" in completed.stderr


def test_hostile_texts_are_text(
    bundle: Path, answers: Callable[..., object], tmp_path: Path
) -> None:
    hostile = "\x1b]0;owned\x07<script>alert(1)</script>[bold]"
    pages = {
        "/v2": lambda handler: handler.reply(
            {"name": hostile, "version": "1", "extensions": ["model_configuration"]}
        )
    }
    config = {"parameters": {"effnet_edge_manifest_sha256": {"string_value": hostile}}}
    script = Script(answers, UINT8_NHWC, pages=pages, config=config)
    with serving(script) as address:
        options = ("--reference", bundle, "--report", "page.html", "--limit", 4)
        completed = run_command("parity", address, *options, cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert "\x1b" not in completed.stdout + completed.stderr
    assert "[bold]" in completed.stdout
    assert "<script>alert" not in (tmp_path / "page.html").read_text()


def test_bench_times_a_bundle_and_a_server_in_one_run(
    bundle: Path, answers: Callable[..., object], tmp_path: Path
) -> None:
    script = Script(answers, UINT8_NHWC)
    with serving(script) as address:
        for options, calls in (((), 1), (("--concurrency", 3), 3)):
            models = ("tiny", address, "--runs", 12, *options, "--json")
            completed = run_command("bench", *models, cwd=tmp_path)
            assert completed.returncode == 0, completed.stderr
            rows = json.loads(completed.stdout)
            assert [each["path"] for each in rows] == ["tiny", address]
            assert [each["timing"]["runs"] for each in rows] == [12, 12]
            assert [each["concurrency"] for each in rows] == [calls, calls]
            assert rows[1]["device"] == "scripted 1 by binary tensors over HTTP"
    assert len(script.batches) == 2 * (4 + 10 + 12)
    assert bundle.exists()


@pytest.mark.sample
def test_bench_of_wrong_answers_under_load_tells_no_time(
    answers: Callable[..., npt.NDArray[np.float32]], tmp_path: Path
) -> None:
    asked: list[int] = []

    def wrong_at_last(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        asked.append(len(batch))
        rows = answers(batch)
        return rows if len(asked) < 30 else rows[:, ::-1].copy()

    with serving(Script(wrong_at_last, UINT8_NHWC)) as address:
        completed = run_command("bench", address, "--concurrency", 4, cwd=tmp_path)
    assert (completed.returncode, completed.stdout) == (1, "")
    assert "answers the same images otherwise under load than alone" in completed.stderr
    assert len(asked) < 30 + CLASSES


def test_bench_refuses_what_the_server_does_not_take(
    answers: Callable[..., object], tmp_path: Path
) -> None:
    script = Script(answers, UINT8_NHWC, config={"max_batch_size": 2})
    open_sides = Script(answers, [-1, -1, -1, 3])
    with serving(script) as address, serving(open_sides) as other:
        batch = run_command("bench", address, "--batch", 3, cwd=tmp_path)
        sides = run_command("bench", other, cwd=tmp_path)
        told = run_command("bench", other, "tiny", "--runs", 3, cwd=tmp_path)
    assert batch.returncode == sides.returncode == 2
    assert "takes at most 2 images a request" in batch.stderr
    assert "leaves the size of its images open" in sides.stderr
    assert told.returncode == 0, told.stderr
