"""What the scripts for a GPU do without one: verdicts on written-down input, and the scripted fake.

No number of a GPU comes from here.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import latency
import layers
import leaks
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from gpu_or_fake import fake_nvidia
from onnx import TensorProto, helper, numpy_helper
from tiny_bundles import CLASSES, SIDE, manifest, tiny_model, write_bundle

from effnet_edge.bundle import OutputSpec
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.pictures.image import normalize
from effnet_edge.runtime.tensorrt.cuda import Cuda
from effnet_edge.runtime.tensorrt.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fake_cuda import FakeCuda
    from fake_tensorrt import FakeTensorRt

INT8 = "Thirty-two wide channel vectorized row major Int8 format"
HALF = "Channel major FP16 format where channel % 8 == 0"
PIXELS = "Row major linear UInt8 format"


@pytest.fixture
def fake() -> Iterator[tuple[FakeCuda, FakeTensorRt]]:
    with fake_nvidia() as modules:
        yield modules


# The layers


def graph() -> onnx.GraphProto:
    """A stem in FP16, SiLU, a pair, and a convolution in INT8."""
    constants = {
        "stem.weight": np.zeros((8, 3, 3, 3), np.float16),
        "conv.weight": np.zeros((8, 8, 1, 1), np.int8),
        "scale": np.float16(1),
    }
    nodes = [
        helper.make_node("Conv", ["values", "stem.weight"], ["a"], "stem"),
        helper.make_node("Sigmoid", ["a"], ["b"], "sigmoid"),
        helper.make_node("Mul", ["a", "b"], ["c"], "mul"),
        helper.make_node("QuantizeLinear", ["c", "scale"], ["d"], "quantize"),
        helper.make_node("DequantizeLinear", ["d", "scale"], ["e"], "dequantize"),
        helper.make_node("DequantizeLinear", ["conv.weight", "scale"], ["f"], "weights"),
        helper.make_node("Conv", ["e", "f"], ["logits"], "conv"),
    ]
    return helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("values", TensorProto.FLOAT16, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT16, [1, 8, 6, 6])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )


def layer(name: str, kind: str, takes: str, gives: str, *nodes: str, **more: Any) -> layers.Layer:
    """As TensorRT 10 writes it with detailed profiling verbosity."""
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"Name": "in", "Dimensions": [1, 8, 8, 8], "Format/Datatype": takes}],
        "Outputs": [{"Name": "out", "Dimensions": [1, 8, 8, 8], "Format/Datatype": gives}],
        "Metadata": "\x1e".join(f"[ONNX Layer: {node}]" for node in nodes),
        **more,
    }


STEM = layer("stem", "CaskConvolution", HALF, INT8, "stem", "sigmoid", "mul", "quantize")
CONV = layer("conv", "CaskConvolution", INT8, HALF, "dequantize", "weights", "conv")
INPUT = layer("copy", "Reformat", PIXELS, HALF, Origin="REFORMAT")


def test_a_graph_says_what_its_convolutions_run_in() -> None:
    assert layers.precisions_in(graph()) == {"stem": "FP16", "conv": "INT8"}


def test_an_engine_that_does_as_the_graph_says() -> None:
    assert layers.faults([INPUT, STEM, CONV], graph()) == []


def test_the_words_of_other_versions() -> None:
    """Myelin's kernels name a type alone, and TensorRT 11 has it in a field of its own."""
    kernel = layer("__myl_Conv", "kgen", "Half", "Int8", "stem", "sigmoid", "mul", "quantize")
    newer = {**CONV, "Inputs": [{"Name": "in", "DataType": "Int8", "Format": "kCHW32"}]}
    assert layers.faults([kernel, newer], graph()) == []


@pytest.mark.parametrize(
    ("engine", "fault"),
    [
        ([STEM, {**CONV, "Inputs": [{"Format/Datatype": HALF}]}], "conv: runs in FP16, not in IN"),
        (
            [{**STEM, "Inputs": [{"Format/Datatype": "Row major linear FP32"}]}, CONV],
            "stem: runs in FP32, not in FP16",
        ),
        ([STEM, {**CONV, "Metadata": ""}], "conv: no layer names it"),
        (
            [STEM, layer("QuantizeLinear_2", "Reformat", "", "", Origin="QDQ"), CONV],
            "QuantizeLinear_2: a conversion to or from INT8 that stands alone",
        ),
        ([STEM, layer("copy", "Reformat", HALF, INT8, Origin="REFORMAT"), CONV], "copy: a conv"),
        ([STEM, layer("q", "kgen", "Half", "Int8", "quantize", "dequantize"), CONV], "q: a conv"),
        ([STEM, layer("s", "Dequantize", INT8, HALF), CONV], "s: a conversion"),
    ],
)
def test_what_is_wrong_with_an_engine(engine: list[layers.Layer], fault: str) -> None:
    (found,) = layers.faults(engine, graph())
    assert found.startswith(fault)


def test_layout_alone_is_no_conversion() -> None:
    relaid = layer("copy", "Reformat", INT8, "Four wide channel vectorized row major Int8 format")
    assert layers.faults([STEM, relaid, CONV], graph()) == []


def test_an_engine_without_details_is_not_taken_for_a_good_one() -> None:
    names = layers.layers_in('{"Layers": ["stem + mul", "conv"]}')
    told = layers.faults(names, graph())
    assert told == ["stem: no layer names it", "conv: no layer names it"]


@pytest.mark.parametrize("named", [True, False])
def test_the_layers_of_a_bundle(
    tmp_path: Path,
    fake: tuple[FakeCuda, FakeTensorRt],
    capsys: pytest.CaptureFixture[str],
    named: bool,
) -> None:
    model = tiny_model()
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}-{index}"
    nodes = [node.name for node in model.graph.node] if named else []
    path = write_bundle(tmp_path / "b", "tensorrt", model)
    all_in_one = layer("all", "kgen", "Float", "Float", *nodes)
    fake[1].inspection = json.dumps({"Layers": [all_in_one]})
    assert layers.main(str(path)) == (0 if named else 1)
    printed = capsys.readouterr().out
    assert "1  kgen  Float" in printed
    assert ("fault: Conv-3: no layer names it" in printed) == (not named)


# Leaks


def test_no_leak_is_found_where_there_is_none(
    tmp_path: Path, fake: tuple[FakeCuda, FakeTensorRt]
) -> None:
    path = write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N"))
    result = CliRunner().invoke(leaks.main, [str(path), "--runs", "60"])
    assert result.exit_code == 0, result.output
    assert [line.split(":")[0] for line in result.output.splitlines()] == [
        "process, 60 inferences",
        "GPU, 60 inferences",
        "process, 20 times loaded",
        "GPU, 20 times loaded",
    ]
    assert fake[0].alive == {}


def test_a_leak_of_the_gpus_memory_is_found(
    tmp_path: Path, fake: tuple[FakeCuda, FakeTensorRt], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Lane.run

    def leaking(lane: Lane, batch: Any) -> Any:
        fake[0].cudaMalloc(leaks.MIB)
        return run(lane, batch)

    monkeypatch.setattr(Lane, "run", leaking)
    monkeypatch.setattr(leaks, "WARMUP", 1)
    path = write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N"))
    result = CliRunner().invoke(leaks.main, [str(path), "--runs", "30"])
    assert result.exit_code == 1
    assert "GPU, 30 inferences: +30.0 MiB" in result.output


def test_a_leak_of_the_processs_memory_is_found(
    tmp_path: Path, fake: tuple[FakeCuda, FakeTensorRt], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, kept = Lane.run, []

    def leaking(lane: Lane, batch: Any) -> Any:
        # Pages of its own: an array may lie where the tests before have freed memory.
        kept.append(mmap.mmap(-1, leaks.MIB))
        kept[-1].write(b"1" * leaks.MIB)
        return run(lane, batch)

    monkeypatch.setattr(Lane, "run", leaking)
    monkeypatch.setattr(leaks, "WARMUP", 1)
    path = write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N"))
    grown = leaks.growth(str(path), 30)
    assert grown["process, 30 inferences"] > leaks.ALLOWED_MIB
    assert grown["GPU, 30 inferences"] == 0
    assert fake[0].alive == {}


def test_memory_that_closing_leaves_behind_is_found(
    tmp_path: Path, fake: tuple[FakeCuda, FakeTensorRt], monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate = Cuda.allocate
    monkeypatch.setattr(Cuda, "allocate", lambda cuda, size: allocate(cuda, size + leaks.MIB))
    monkeypatch.setattr(Cuda, "free", lambda *_: None)
    monkeypatch.setattr(leaks, "WARMUP", 1)
    path = write_bundle(tmp_path / "b", "tensorrt", tiny_model(batch="N"))
    assert leaks.growth(str(path), 3)["GPU, 20 times loaded"] > leaks.ALLOWED_MIB
    assert fake[0].alive != {}


# Latency


@pytest.mark.sample
def test_the_table_of_latencies(tmp_path: Path) -> None:
    """PyTorch on the CPU, eager: compiled and with CUDA graphs only on a GPU."""
    network = NetworkRequest("b0", weights="random", num_classes=CLASSES, resolution=SIDE)
    weights = load_source(network).weights
    paths = [
        write_bundle(tmp_path / name, "onnxruntime", tiny_model(), weights=weights)
        for name in ("first", "second")
    ]
    result = CliRunner().invoke(latency.main, [*map(str, paths), "--runs", "2"])
    assert result.exit_code == 0, result.output
    for row in ("torch FP16 on c", "first, FP32", "second, FP32", "batch 1, 2 runs in turns"):
        assert row in result.output
    header = result.output.splitlines()[2]
    assert all(heading in header for heading in ("median ms", "p99 ms", "of eager"))


def test_the_network_that_is_timed_computes_what_pytorch_does() -> None:
    source = load_source(NetworkRequest("b0", resolution=64))
    described = manifest(
        weights=source.weights,
        output=OutputSpec("logits", 1000),
        preprocessing=source.preprocessing,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    (call,) = latency.torch_calls(described, pixels, "cpu").values()
    answer: Any = call()
    with torch.inference_mode():
        values = torch.from_numpy(normalize(pixels, source.preprocessing))
        expected = source.network.eval()(values).numpy()
    np.testing.assert_allclose(answer.numpy(), expected, atol=0.02 * np.ptp(expected))


# All of it


HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def dry_run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script with the scripted GPU, by tests/gpu/dry_run/sitecustomize.py."""
    folders = [HERE / "dry_run", ROOT, ROOT / "export", ROOT / "calibration"]
    commands = [str(Path(sys.executable).parent), os.environ["PATH"]]
    return subprocess.run(
        ["bash", str(HERE / "run.sh"), *arguments],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "PATH": os.pathsep.join(commands),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.sample
def test_a_gpu_that_tensorrt_rtx_does_not_list_is_tried_and_reported() -> None:
    completed = dry_run("tensorrt-rtx", DRY_RUN_CAPABILITY="9.0")
    assert completed.returncode == 1, completed.stderr
    lines = completed.stdout.splitlines()
    assert "Dry run, compute capability 9.0" in lines
    assert [line for line in lines if line.startswith("compiled for")] == [
        f"compiled for {each}: runs"
        for each in ("7.5", "8.6", "8.7", "8.9", "12.0", "no compute capability by name")
    ]
    assert lines[-1].startswith("failed: TensorRT-RTX lists no compute capability 9.0, only NONE")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_script_runs_to_its_end() -> None:
    """All but the runner's tests, which run in this suite."""
    completed = dry_run("tensorrt", EFFNET_EDGE_LEAK_RUNS="60", EFFNET_EDGE_NO_TESTS="1")
    assert completed.returncode == 0, completed.stdout + completed.stderr
    lines = completed.stdout.splitlines()
    steps = [line.removeprefix("== ") for line in lines if line.startswith("== ")]
    assert steps == [
        "the machine",
        *(
            f"{precision}: {step}"
            for precision in ("fp32", "fp16", "int8")
            for step in (
                "export, build, predict",
                "parity of the engine with PyTorch",
                "the engine's layers",
            )
        ),
        "latency against PyTorch in FP16",
        "memory over 60 inferences",
        "the end",
    ]
    assert lines[-1] == "all steps passed"
