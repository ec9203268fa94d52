from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from runner_answers import INT8_TARGETS, assert_close, expected, pixels
from tiny_bundles import LABELS, MODEL_FILES, tiny_model, write_bundle

from effnet_edge.bundle import BatchRange, Bundle, BundleWriter
from effnet_edge.errors import BackendError, BundleError, EffnetEdgeError, UsageError
from effnet_edge.graphs.litert_file import pack, unpack
from effnet_edge.machine import usable_cores
from effnet_edge.runtime import EngineRunner
from effnet_edge.runtime.openvino_core import openvino_core
from effnet_edge.targets import TARGETS
from effnet_export.litert.writing import litert_file

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("gpu")

# Precision


def test_an_fp32_bundle_runs_in_fp32_unless_asked_otherwise(bundles: Path, target: str) -> None:
    for precision in (None, "fp32"):
        with EngineRunner.load(bundles / f"{target}-one", precision=precision) as run:
            assert run.execution_precision == "FP32"


@pytest.mark.parametrize("target", INT8_TARGETS)
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
    write_bundle(tmp_path / "b", "openvino", tiny_model(), precision="fp16")
    with EngineRunner.load(tmp_path / "b") as run:
        capabilities = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        natural = {"FP16", "BF16"} & set(capabilities) or {"FP32"}
        assert run.execution_precision in natural


def test_a_precision_that_this_processor_lacks_is_refused(bundles: Path) -> None:
    if "FP16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
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


@pytest.mark.parametrize("target", [name for name, row in TARGETS.items() if row.has_streams])
@pytest.mark.parametrize("threads", [None, 3])
def test_throughput_mode(bundles: Path, target: str, threads: int | None) -> None:
    options: dict[str, Any] = {"throughput": True, "threads": threads}
    with EngineRunner.load(bundles / f"{target}-one", **options) as run:
        assert run.parallelism >= 1  # OpenVINO has no more streams than cores
        if target == "onnxruntime" and threads is not None:
            assert run.parallelism == threads
        futures = [run.submit(pixels(1, seed)) for seed in range(20)]
        for seed, future in enumerate(futures):
            assert_close(future.result(60), expected(1, seed))


@pytest.mark.parametrize("target", [name for name, row in TARGETS.items() if row.has_streams])
def test_as_many_streams_as_are_asked_for(bundles: Path, target: str) -> None:
    streams = min(2, usable_cores())
    with EngineRunner.load(bundles / f"{target}-one", streams=streams) as run:
        assert run.parallelism == streams
        futures = [run.submit(pixels(1, seed)) for seed in range(8)]
        for seed, future in enumerate(futures):
            assert_close(future.result(60), expected(1, seed))


@pytest.mark.parametrize(
    ("target", "options", "says"),
    [
        ("openvino", {"streams": 9, "threads": 1}, "streams 9: OpenVINO's CPU here makes 1 of"),
        ("onnxruntime", {"streams": 2, "threads": 2}, "leave out threads or streams"),
        ("litert", {"streams": 2}, "no throughput mode"),
        ("openvino", {"streams": 0}, "streams 0: needs 1 or more"),
        ("tensorrt", {"streams": 5}, "streams 5: 4 at most"),
    ],
)
def test_streams_that_an_engine_does_not_have_are_refused(
    bundles: Path, target: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        EngineRunner.load(bundles / f"{target}-one", **options)


def test_openvino_may_choose_the_device(bundles: Path) -> None:
    with EngineRunner.load(bundles / "openvino-one", device="AUTO") as run:
        assert_close(run.infer(pixels(2)), expected(2))
        assert run.execution_precision in ("FP32", "FP16")


@pytest.mark.parametrize("device", ["cpu", "CPU.0", "AUTO:-GPU", "MULTI:CPU(2)", "hetero:cpu"])
def test_openvinos_own_names_of_devices_are_taken(bundles: Path, device: str) -> None:
    with EngineRunner.load(bundles / "openvino-one", device=device) as run:
        assert_close(run.infer(pixels(2)), expected(2))
        assert run.device == "CPU"


@pytest.mark.parametrize("device", ["AUTO:TPU", "HETERO:TPU,CPU", "MULTI", "BATCH:"])
def test_what_a_device_cannot_choose_among_is_bad_use(bundles: Path, device: str) -> None:
    with pytest.raises(UsageError, match=f"device '{device}'.* CPU|device '{device}'.*:CPU"):
        EngineRunner.load(bundles / "openvino-one", device=device)


@pytest.mark.parametrize("device", ["AUTO", "MULTI:CPU", "HETERO:CPU", "BATCH:CPU"])
def test_a_device_that_chooses_keeps_to_what_was_asked_for(bundles: Path, device: str) -> None:
    able = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision in ("fp32", "bf16", "fp16"):
        if precision.upper() in able:
            load = nullcontext()
        else:
            load = pytest.raises(UsageError, match=f"precision '{precision}': .* chosen CPU")
        with load:
            EngineRunner.load(bundles / "openvino-one", device=device, precision=precision).close()
    with pytest.raises(UsageError, match="streams 9: OpenVINO's .* here makes 1 of them: ask"):
        EngineRunner.load(bundles / "openvino-one", device=device, streams=9, threads=1)


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


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("litert", {"throughput": True}),
        ("litert", {"precision": "bf16"}),
        ("onnxruntime", {"precision": "bf16"}),
    ],
)
def test_what_a_library_cannot_do_is_refused(
    bundles: Path, target: str, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=TARGETS[target].title):
        EngineRunner.load(bundles / f"{target}-one", **options)


def test_an_altered_model_is_never_loaded(tmp_path: Path, target: str) -> None:
    path = write_bundle(tmp_path / "b", target, tiny_model())
    victim = path / MODEL_FILES.get(target, "model.onnx").replace(".xml", ".bin")
    data = bytearray(victim.read_bytes())
    data[-10] ^= 1
    victim.write_bytes(data)
    with pytest.raises(BundleError, match="is not the file that was exported"):
        EngineRunner.load(path)


def test_a_model_that_the_library_refuses_names_file_and_versions(
    tmp_path: Path, cpu_target: str
) -> None:
    file = MODEL_FILES.get(cpu_target, "model.onnx")
    good = Bundle.load(write_bundle(tmp_path / "good", cpu_target, tiny_model())).manifest
    later = tiny_model()
    later.opset_import[0].version = 99
    lite = unpack(litert_file(tiny_model()))
    lite.operatorCodes[0].version = 99
    content = {
        "openvino": b"<net version='99'></net>",
        "onnxruntime": later.SerializeToString(),
        "litert": pack(lite),
    }
    with BundleWriter(tmp_path / "bad") as writer:
        (writer.staging / file).write_bytes(content[cpu_target])
        writer.commit(replace(good, tools={TARGETS[cpu_target].package: "2025.0"}), LABELS)
    with pytest.raises(BackendError, match=file) as caught:
        EngineRunner.load(tmp_path / "bad")
    assert "2025.0, here" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_library_says_how_to_install_it(
    bundles: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, TARGETS[target].library, None)
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
heavy = {"torch", "onnx", "onnxruntime", "openvino", "tensorrt", "ai_edge_litert"}
print(heavy & set(sys.modules))
"""


def test_a_runner_loads_its_own_library_and_no_other(bundles: Path, cpu_target: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALONE, bundles / f"{cpu_target}-one"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (done.stdout, done.stderr) == (f"{{'{TARGETS[cpu_target].library}'}}\n", "")
