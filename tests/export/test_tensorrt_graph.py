"""The graphs of the TensorRT targets in NVIDIA's own parser and compiler, which need no GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
import pytest

from effnet_edge.bundle import BatchRange, Bundle, Manifest
from effnet_edge.errors import BackendError, UsageError
from effnet_edge.runtime.tensorrt.build import build_engine
from effnet_edge.runtime.tensorrt.plan import BuildOptions
from effnet_export.pipeline import ExportRequest, export_bundle

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("tensorrt_rtx")


def exported(folder: Path, variant: str, precision: str, resolution: int, **more: object) -> Bundle:
    request = ExportRequest(
        variant=variant,
        target="tensorrt-rtx",
        precision=precision,
        resolution=resolution,
        batch=BatchRange(1, 1, 4),
        calibration_size=32,
        compute_capabilities=("8.6",),
        output=folder / "bundle",
        **more,
    )
    return export_bundle(request).bundle


@pytest.fixture(scope="module", params=["fp16", "int8"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp(request.param)
    return exported(folder, "b0", request.param, 96)


def test_the_export_leaves_an_engine_and_a_proof(bundle: Bundle) -> None:
    (engine,) = bundle.manifest.engines
    assert engine.library == "tensorrt-rtx"
    assert engine.compute_capability == ("8.6",)
    assert engine.batch == BatchRange(1, 1, 4)
    assert bundle.manifest.parity[-1].execution_precision.endswith("(simulated)")
    assert Bundle.load(bundle.path).manifest == bundle.manifest


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


def test_another_engine_joins_the_first(bundle: Bundle, tmp_path: Path) -> None:
    import shutil

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
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BackendError, match="refuses it") as raised:
        build_engine(Bundle(damaged, bundle.manifest, None))
    assert "\n" not in str(raised.value)


def test_only_tensorrt_bundles_are_built(bundle: Bundle) -> None:
    other: Manifest = replace(bundle.manifest, target="openvino")
    with pytest.raises(UsageError, match="need no build"):
        build_engine(replace(bundle, manifest=other))


@pytest.mark.slow
@pytest.mark.parametrize("variant", [f"b{index}" for index in range(1, 8)])
def test_the_whole_family_builds(variant: str, tmp_path: Path) -> None:
    """In FP16: INT8 of an untrained network does not pass the gate."""
    built = exported(tmp_path, variant, "fp16", 64, weights="random")
    assert built.manifest.engines
