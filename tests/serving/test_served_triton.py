"""Models behind a real Triton server, compared and timed by the real commands."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from model_repository import add_model
from real_commands import run_command
from tiny_bundles import SIDE, tiny_model, write_bundle
from triton_server import Server, import_client, installed, triton

from effnet_edge import EngineRunner
from effnet_edge.errors import BackendError, ServerError
from effnet_edge.serving.model import ServedModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.sample]

PIXELS = np.random.default_rng(1).integers(0, 256, (50, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles, and a repository where "planted" says that it is the first and is the second."""
    room = tmp_path_factory.mktemp("served")
    model, other = tiny_model(batch="N"), tiny_model(batch="N")
    kernel = next(each for each in other.graph.initializer if each.name == "kernel")
    values = np.frombuffer(kernel.raw_data, np.float32).reshape(8, 3, 3, 3)
    kernel.raw_data = np.ascontiguousarray(values[:, :, :, ::-1]).tobytes()
    good = write_bundle(room / "good", "onnxruntime", model)
    wrong = write_bundle(room / "wrong", "onnxruntime", other)
    floats = write_bundle(room / "floats", "onnxruntime", tiny_model("float32", batch="N"))
    repository = room / "repository"
    add_model(repository, "good", good, told_bundle=good)
    add_model(repository, "good", wrong, told_bundle=good, version=2)
    add_model(repository, "planted", wrong, told_bundle=good)
    add_model(repository, "floats", floats, max_batch_size=4)
    return room


@pytest.fixture(scope="module")
def server(room: Path) -> Iterator[Server]:
    with triton(room / "repository") as running:
        yield running


def addresses(server: Server, model: str) -> list[str]:
    return [f"http://{server.http}/{model}", f"grpc://{server.grpc}/{model}"]


@pytest.mark.parametrize("form", ["binary", "json", "grpc"])
def test_50_requests_are_bit_identical_to_the_engine(room: Path, server: Server, form: str) -> None:
    import_client()
    address = addresses(server, "good/versions/1")[form == "grpc"]
    with (
        EngineRunner.load(room / "good", threads=1) as runner,
        ServedModel.connect(address, form=None if form == "grpc" else form) as model,  # type: ignore[arg-type]
    ):
        (taken,), (given,) = model.description.inputs, model.description.outputs
        assert (taken.datatype, taken.shape) == ("UINT8", (None, SIDE, SIDE, 3))
        assert (model.description.least, model.description.most) == (1, 8)
        for index in range(50):
            pixels = PIXELS[index : index + 1 + index % 8]
            request = model.prepare(taken, pixels, given.name)
            answer = model.send(request, given.name, len(pixels))
            assert answer.tobytes() == runner.infer(pixels).tobytes()


def test_what_triton_refuses_is_told(server: Server) -> None:
    import_client()
    for address in addresses(server, "good"):
        with ServedModel.connect(address) as model:
            (taken,) = model.description.inputs
            for pixels in (PIXELS[:9], PIXELS[:1, :5]):
                request = model.prepare(taken, pixels, "logits")
                with pytest.raises(BackendError, match="the server refuses.*shape|batch"):
                    model.send(request, "logits", len(pixels))
    for address in (*addresses(server, "nothing"), *addresses(server, "good/versions/9")):
        with pytest.raises(
            BackendError, match="the server has no such model, or it is not ready: .*not found"
        ):
            ServedModel.connect(address)
    for address in (f"http://{server.grpc}/good", f"grpc://{server.http}/good"):
        with pytest.raises(ServerError, match="speaks no HTTP|no server of KServe v2"):
            ServedModel.connect(address, timeout=5)


def test_a_planted_wrong_bundle_is_caught_and_named(room: Path, server: Server) -> None:
    models = [f"http://{server.http}/{each}" for each in ("good/versions/1", "planted")]
    options = ("--reference", "good", "--min-sqnr", 60, "--min-agreement", 99, "--limit", 40)
    completed = run_command("parity", *models, *options, "--report", "page.html", cwd=room)
    assert completed.returncode == 1, completed.stderr
    failed = [line for line in completed.stdout.splitlines() if line.startswith("FAILED: ")]
    assert failed
    assert all(line.startswith(f"FAILED: {models[1]}: ") for line in failed)
    assert "a server gives answers only" in completed.stderr
    document = json.loads((room / "page.parity.json").read_text())
    sound, planted = document["candidates"]
    assert (sound["passed"], sound["sqnr_db"], planted["passed"]) == (True, "Infinity", False)
    page = (room / "page.html").read_text()
    assert models[1] in page


def test_both_transports_and_versions_are_compared_in_one_run(room: Path, server: Server) -> None:
    models = (*addresses(server, "good/versions/1"), *addresses(server, "good"))
    environment = {"PYTHONPATH": os.pathsep.join([*_paths(), str(installed("client"))])}
    completed = run_command(
        "parity", *models, "--reference", "good", "--json", cwd=room, environment=environment
    )
    assert completed.returncode == 0, completed.stderr
    document = json.loads(completed.stdout)
    first = [each["sqnr_db"] == "Infinity" for each in document["candidates"]]
    assert first == [True, True, False, False]  # without a version Triton takes the last one
    assert [file["input"] for file in document["files"]] == [
        "uint8 NHWC (N, 8, 8, 3), pixels of 0..255"
    ] * 4


def test_normalized_floats_beyond_the_servers_batch(room: Path, server: Server) -> None:
    model = f"http://{server.http}/floats"
    completed = run_command("parity", model, "--reference", "floats", "--json", cwd=room)
    assert completed.returncode == 0, completed.stderr
    document = json.loads(completed.stdout)
    (candidate,) = document["candidates"]
    assert candidate["sqnr_db"] == "Infinity"
    assert [each["size"] for each in candidate["batch_sizes"]] == [1, 3, 4, 5, 8]


def test_bench_beside_the_bundle(room: Path, server: Server) -> None:
    models = ("good", f"http://{server.http}/good/versions/1")
    completed = run_command("bench", *models, "--concurrency", 4, "--runs", 40, "--json", cwd=room)
    assert completed.returncode == 0, completed.stderr
    rows = json.loads(completed.stdout)
    assert [each["timing"]["runs"] for each in rows] == [40, 40]
    assert all(each["images_per_second"] > 0 for each in rows)


def test_a_model_that_is_not_ready_is_told(room: Path, tmp_path: Path) -> None:
    import_client()
    broken = add_model(tmp_path / "repository", "broken", room / "good")
    (broken / "1" / "model.py").write_text("raise RuntimeError('does not load')")
    with triton(tmp_path / "repository", wait=False) as server:
        for address in addresses(server, "broken"):
            with pytest.raises(BackendError, match="is not ready: .*no available versions"):
                _when_it_has_tried_to_load(address)


def _when_it_has_tried_to_load(address: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            ServedModel.connect(address)
        except BackendError as error:
            if "no available versions" in str(error):
                raise
        time.sleep(0.2)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_killed_midway_is_told(room: Path, scheme: str) -> None:
    import_client()
    with triton(room / "repository") as server:
        address = f"{scheme}://{getattr(server, scheme)}/good"
        with ServedModel.connect(address, timeout=20) as model:
            threading.Timer(0.3, os.kill, (server.pid, signal.SIGKILL)).start()
            with pytest.raises(ServerError, match=f"^{address}: "):
                _ask_for_a_minute(model)


def _ask_for_a_minute(model: ServedModel) -> None:
    (taken,) = model.description.inputs
    request = model.prepare(taken, PIXELS[:8], "logits")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        model.send(request, "logits", 8)


def _paths() -> list[str]:
    return [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
