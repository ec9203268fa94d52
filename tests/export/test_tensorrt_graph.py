"""The graphs of the TensorRT targets in NVIDIA's own parser and compiler, which need no GPU."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from tiny_bundles import quantized_model, tiny_model, write_bundle

from effnet_calibration.calibrate import calibrate
from effnet_calibration.quantized import apply
from effnet_calibration.schemes import SYMMETRIC_INT8_DENSE
from effnet_calibration.work import Settings
from effnet_edge.bundle import BatchRange, Bundle, BundleWriter, Manifest
from effnet_edge.errors import BackendError, UsageError
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.runtime.known_answers import known_pictures, read_answers
from effnet_edge.runtime.tensorrt.build import build_engine
from effnet_edge.runtime.tensorrt.plan import BuildOptions
from effnet_export.fp16 import type_fp16
from effnet_export.onnx_graph import export_onnx
from effnet_export.pipeline import export_bundle
from effnet_export.qdq import quantize_graph
from effnet_export.request import ExportRequest
from effnet_export.simplify import simplify
from effnet_export.stand_ins import simulation
from effnet_export.tensorrt_graph import cast_pixels_first

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("tensorrt_rtx")


def exported(folder: Path, variant: str, precision: str, resolution: int, **more: object) -> Bundle:
    request = ExportRequest(
        NetworkRequest(variant, resolution=resolution, **more),
        target="tensorrt-rtx",
        precision=precision,
        batch=BatchRange(1, 1, 4),
        calibration_size=32,
        compute_capabilities=("8.6",),
        output=folder / "bundle",
    )
    return export_bundle(request).bundle


def with_graph(bundle: Bundle, graph: onnx.ModelProto, place: Path) -> Bundle:
    """A bundle of that graph in the place of the bundle's own, without engines."""
    with BundleWriter(place) as writer:
        onnx.save(graph, writer.staging / bundle.manifest.model)
        bare = replace(bundle.manifest, engines=(), calibration=None, answers=None)
        return writer.commit(bare, bundle.labels)


OfPrecision = Callable[[str], Bundle]


@pytest.fixture(scope="module")
def of_precision(tmp_path_factory: pytest.TempPathFactory) -> OfPrecision:
    return cache(lambda each: exported(tmp_path_factory.mktemp(each), "b0", each, 96))


@pytest.fixture(
    params=[
        pytest.param("fp16", marks=pytest.mark.slow),
        pytest.param("int8", marks=pytest.mark.sample),
    ]
)
def bundle(request: pytest.FixtureRequest, of_precision: OfPrecision) -> Bundle:
    return of_precision(request.param)


def test_the_export_leaves_an_engine_and_a_proof(bundle: Bundle) -> None:
    (engine,) = bundle.manifest.engines
    assert engine.library == "tensorrt-rtx"
    assert engine.compute_capability == ("8.6",)
    assert engine.batch == BatchRange(1, 1, 4)
    assert bundle.manifest.parity[-1].execution_precision.endswith("(simulated)")
    assert Bundle.load(bundle.path).manifest == bundle.manifest


def test_the_bundle_brings_what_its_engines_are_held_to(bundle: Bundle) -> None:
    known, pictures = read_answers(bundle), known_pictures(bundle.manifest)
    assert known is not None
    request = NetworkRequest("b0", resolution=96)
    network = load_source(request).network
    exact = TorchClassifier(network, bundle.manifest.preprocessing).infer(pictures)
    np.testing.assert_array_equal(known.exact, exact)
    errors = known.errors(simulation(bundle).infer(pictures))
    assert 0 < errors <= known.allowed / 10 ** (6 / 20) * 1.001
    (engine,) = bundle.manifest.engines
    assert engine.check is None, "there is no such GPU here"


def test_quantization_is_symmetric_and_outside_the_gate(bundle: Bundle) -> None:
    model = onnx.load(bundle.model_path)
    initializers = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert bool(pairs) == (bundle.manifest.precision == "int8")
    for node in pairs:
        assert not initializers[node.input[2]].any()
        assert initializers[node.input[1]].size == 1
    for node in model.graph.node:
        if ".se." in node.name or node.op_type in {"Sigmoid", "Mul", "Add"}:
            sources = [makers[name].op_type for name in node.input if name in makers]
            assert "DequantizeLinear" not in sources, node.name


def test_depthwise_convolutions_stay_in_fp16(bundle: Bundle) -> None:
    """TensorRT-RTX pads INT8 depthwise kernels to forty times their size (docs/tensorrt.md)."""
    graph = onnx.load(bundle.model_path).graph
    makers = {output: node for node in graph.node for output in node.output}
    depthwise = [node for node in graph.node if node.name.endswith(".depthwise.conv")]
    assert len(depthwise) == 16
    for node in depthwise:
        sources = {makers[name].op_type for name in node.input if name in makers}
        assert "DequantizeLinear" not in sources, node.name


@pytest.mark.slow
def test_the_int8_engine_is_smaller_than_that_of_fp16(of_precision: OfPrecision) -> None:
    bundles = {precision: of_precision(precision) for precision in ("fp16", "int8")}
    sizes = {
        precision: (each.path / each.manifest.engines[0].file).stat().st_size
        for precision, each in bundles.items()
    }
    assert sizes["int8"] < 0.95 * sizes["fp16"]


def test_another_engine_joins_the_first(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    told: list[str] = []

    built = build_engine(
        Bundle.load(copy),
        BuildOptions(batch=BatchRange(1, 2, 2), compute_capabilities=("8.9", "12.0")),
        lambda phase, _done, _total: told.append(phase),
    )

    assert [each.file for each in built.manifest.engines] == [
        "engine-sm86.plan",
        "engine-sm89-sm120.plan",
    ]
    assert built.manifest.engines[1].batch == BatchRange(1, 2, 2)
    assert told


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (BuildOptions(compute_capabilities=("5.0",)), "--compute-capability 5.0: TensorRT-RTX"),
        (BuildOptions(batch=BatchRange(1, 8, 8)), "--batch 1:8:8: the graph takes 1 to 4 images"),
    ],
)
def test_what_does_not_fit_is_refused(bundle: Bundle, options: BuildOptions, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        build_engine(bundle, options)


def test_a_graph_that_the_parser_refuses_is_one_line(bundle: Bundle, tmp_path: Path) -> None:
    model = onnx.load(bundle.model_path)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    bias = next(each for each in model.graph.initializer if each.name == first.input[2])
    integers = onnx.numpy_helper.to_array(bias).astype("int32")
    bias.CopyFrom(onnx.numpy_helper.from_array(integers, bias.name))
    damaged = with_graph(bundle, model, tmp_path / "damaged")
    with pytest.raises(BackendError, match="refuses it") as raised:
        build_engine(damaged)
    assert "\n" not in str(raised.value)


@pytest.mark.sample
def test_a_workspace_that_is_too_small_is_one_line(of_precision: OfPrecision) -> None:
    with pytest.raises(BackendError, match="cannot build .*(OutOfMemory|workspace)") as raised:
        build_engine(of_precision("int8"), BuildOptions(workspace_mib=1))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["one", "four", "dynamic", "float", "int8"])
def test_the_models_of_the_runners_tests_can_be_built(name: str, tmp_path: Path) -> None:
    """On the day when there is a GPU, those tests build them for it."""
    models = {
        "one": tiny_model,
        "four": lambda: tiny_model(batch=4),
        "dynamic": lambda: tiny_model(batch="N"),
        "float": lambda: tiny_model("float32", "N"),
        "int8": lambda: quantized_model(tmp_path),
    }
    path = write_bundle(tmp_path / "b", "tensorrt-rtx", models[name]())
    assert build_engine(Bundle.load(path)).manifest.engines


INTERRUPTED = """
import signal, sys
from effnet_edge.bundle import Bundle
from effnet_edge.runtime.tensorrt.build import build_engine

# A shell's background jobs ignore SIGINT, and what they start inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

def interrupt(_phase, done, _total):
    if done == 1:
        signal.raise_signal(signal.SIGINT)

try:
    build_engine(Bundle.load(sys.argv[1]), on_progress=interrupt)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.slow
def test_an_interrupt_ends_the_build_quietly_and_changes_nothing(
    of_precision: OfPrecision,
) -> None:
    """The library prints a traceback of what is raised in its progress monitor."""
    before = of_precision("fp16")
    command = [sys.executable, "-c", INTERRUPTED, str(before.path)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "interrupted\n", "")
    assert Bundle.load(before.path).manifest == before.manifest


def test_only_tensorrt_bundles_are_built(bundle: Bundle) -> None:
    other: Manifest = replace(bundle.manifest, target="openvino")
    with pytest.raises(UsageError, match="need no build"):
        build_engine(replace(bundle, manifest=other))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("variant", [f"b{index}" for index in range(1, 8)])
def test_the_whole_family_builds(variant: str, tmp_path: Path) -> None:
    built = exported(tmp_path, variant, "fp16", 64, weights="random")
    assert built.manifest.engines


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("variant", [f"b{index}" for index in range(1, 8)])
def test_int8_of_the_whole_family_builds(
    variant: str, of_precision: OfPrecision, tmp_path: Path
) -> None:
    """The graph alone: an untrained network does not pass the gate of an export to INT8."""
    source = load_source(NetworkRequest(variant, weights="random", resolution=96))
    folded, few = fold_batch_norm(source.network), EmbeddedPhotos(32)
    plain = Settings(correct_biases=False)
    table = calibrate(folded, few, source.preprocessing, (SYMMETRIC_INT8_DENSE,), settings=plain)
    quantized = apply(folded, table, SYMMETRIC_INT8_DENSE)
    batch = BatchRange(1, 1, 4)
    graph = export_onnx(
        quantized.network, source.preprocessing, input_kind="uint8-nhwc", batch=batch
    )
    graph = quantize_graph(simplify(graph), quantized)
    typed = type_fp16(cast_pixels_first(graph), EmbeddedPhotos(8), source.preprocessing).model

    options = BuildOptions(compute_capabilities=("8.9",))
    built = build_engine(with_graph(of_precision("int8"), typed, tmp_path / "b"), options)

    weights = sum(each.integers.numel() for each in quantized.weights.values())
    assert (built.path / built.manifest.engines[-1].file).stat().st_size > weights
