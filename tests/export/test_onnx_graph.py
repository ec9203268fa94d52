"""The exported graph: shapes, types, names, and no shape arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from effnet_edge.bundle import BatchRange
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import Source, load_source
from effnet_edge.model.variants import VARIANTS
from effnet_edge.parity.inside.bisection import find_faults
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_export.onnx_graph import OPSET, export_onnx
from effnet_export.simplify import simplify

STATIC, DYNAMIC = BatchRange(2, 2, 2), BatchRange(1, 4, 8)


@pytest.fixture(scope="module")
def source() -> Source:
    """Half of B0's blocks: each kind is there."""
    variant = replace(VARIANTS["b0"], depth=0.5)
    network = EfficientNet(variant, num_classes=10, resolution=75).eval()
    request = NetworkRequest("b0", weights="random", num_classes=10, resolution=75)
    return replace(load_source(request), network=network)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("uint8-nhwc", DYNAMIC), id="uint8-nhwc-dynamic"),
        pytest.param(("float32-nchw", STATIC), id="float32-nchw-static", marks=pytest.mark.sample),
        pytest.param(("uint8-nhwc", STATIC), id="uint8-nhwc-static", marks=pytest.mark.slow),
        pytest.param(("float32-nchw", DYNAMIC), id="float32-nchw-dynamic", marks=pytest.mark.slow),
    ],
)
def input_and_batch(request: pytest.FixtureRequest) -> tuple[str, BatchRange]:
    return request.param


@pytest.fixture(scope="module")
def input_kind(input_and_batch: tuple[str, BatchRange]) -> str:
    return input_and_batch[0]


@pytest.fixture(scope="module")
def batch(input_and_batch: tuple[str, BatchRange]) -> BatchRange:
    return input_and_batch[1]


@pytest.fixture(scope="module")
def graph(source: Source, input_kind: str, batch: BatchRange) -> onnx.ModelProto:
    folded = fold_batch_norm(source.network)
    return simplify(export_onnx(folded, source.preprocessing, input_kind=input_kind, batch=batch))


def test_input_and_output_are_as_asked(
    graph: onnx.ModelProto, input_kind: str, batch: BatchRange
) -> None:
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    (model_input,), (output,) = session.get_inputs(), session.get_outputs()

    first = 2 if batch is STATIC else "batch"
    assert (model_input.name, output.name) == ("image", "logits")
    if input_kind == "uint8-nhwc":
        assert model_input.type == "tensor(uint8)"
        assert model_input.shape == [first, 75, 75, 3]
    else:
        assert model_input.type == "tensor(float)"
        assert model_input.shape == [first, 3, 75, 75]
    assert output.shape[1] == 10


def test_logits_are_those_of_the_network(graph: onnx.ModelProto, source: Source) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 75, 75, 3), np.uint8)
    reference = TorchClassifier(source.network, source.preprocessing)

    found = OnnxClassifier(graph, source.preprocessing).infer(pixels)

    np.testing.assert_allclose(found, reference.infer(pixels), atol=1e-4)


def test_the_graph_has_no_shape_arithmetic_and_no_explicit_pads(graph: onnx.ModelProto) -> None:
    operations = {node.op_type for node in graph.graph.node}

    assert operations <= {
        *("Cast", "Transpose", "Conv", "Sigmoid", "Mul", "Add", "ReduceMean", "Gemm"),
    }
    onnx.checker.check_model(graph, full_check=True)
    assert [entry.version for entry in graph.opset_import if not entry.domain] == [OPSET]


def test_tensors_carry_the_names_of_the_modules_that_make_them(
    graph: onnx.ModelProto, source: Source
) -> None:
    folded = fold_batch_norm(source.network)
    made = {output for node in graph.graph.node for output in node.output}
    convolutions = {
        name for name, module in folded.named_modules() if type(module).__name__.endswith("Conv2d")
    }

    assert convolutions <= made
    assert all(node.name for node in graph.graph.node)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 75, 75, 3), np.uint8)
    reference = TorchClassifier(folded, source.preprocessing)
    candidate = OnnxClassifier(graph, source.preprocessing)
    findings = find_faults(reference, candidate, pixels)
    assert findings.faults == ()
    assert findings.nodes > 100


def test_nothing_of_the_build_host_is_in_the_model(graph: onnx.ModelProto) -> None:
    text = graph.SerializeToString()

    assert b"/work" not in text
    assert b"stack_trace" not in text
