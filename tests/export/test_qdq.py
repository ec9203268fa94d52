"""The Q/DQ graph against the simulation, and in OpenVINO's own execution graph."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cache
from math import nan
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from effnet_calibration.calibrate import calibrate
from effnet_calibration.path import STEM
from effnet_calibration.quantized import QuantizedNetwork, apply
from effnet_calibration.schemes import (
    ASYMMETRIC_UINT8,
    SYMMETRIC_INT8,
    SYMMETRIC_INT8_DENSE,
    QuantizationScheme,
)
from effnet_edge.bundle import BatchRange
from effnet_edge.errors import GateError
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import Source, load_source
from effnet_edge.parity import compare
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_edge.runtime.openvino_core import openvino_core
from effnet_export.gate import (
    ROUNDED_WEIGHTS,
    ParityGate,
    ratio_uncertainty,
    simulation_gate,
)
from effnet_export.onnx_graph import export_onnx
from effnet_export.qdq import quantize_graph, without_pairs
from effnet_export.simplify import simplify

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from effnet_edge.parity import ParityResult

    PlantFault = Callable[[onnx.ModelProto, str], str]

# Of B0: stem and head, five in each of 16 blocks, of which the first has no expansion.
CONVOLUTIONS = 2 + 16 * 5 - 1


@pytest.fixture(scope="module")
def source() -> Source:
    return load_source(NetworkRequest("b0", resolution=96))


class Made:
    """What is made of the source for a scheme, once, when it is first asked for."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._folded = fold_batch_norm(source.network)

    @cache  # noqa: B019 - lives as long as the module's tests
    def network(self, scheme: QuantizationScheme) -> QuantizedNetwork:
        table = calibrate(self._folded, EmbeddedPhotos(32), self.source.preprocessing, (scheme,))
        return apply(self._folded, table, scheme)

    def graph(self, scheme: QuantizationScheme, input_kind: str = "uint8-nhwc") -> onnx.ModelProto:
        """Of the caller's own, to be changed."""
        return copy.deepcopy(self._graph(scheme, input_kind))

    @cache  # noqa: B019
    def _graph(self, scheme: QuantizationScheme, input_kind: str) -> onnx.ModelProto:
        network, preprocessing = self.network(scheme), self.source.preprocessing
        exported = export_onnx(
            network.network, preprocessing, input_kind=input_kind, batch=BatchRange(1, 1, 1)
        )
        return quantize_graph(simplify(exported), network)


@pytest.fixture(scope="module")
def made(source: Source) -> Made:
    return Made(source)


@pytest.fixture(
    params=[
        ASYMMETRIC_UINT8,
        pytest.param(SYMMETRIC_INT8, marks=pytest.mark.slow),
        pytest.param(SYMMETRIC_INT8_DENSE, marks=pytest.mark.slow),
    ],
    ids=lambda scheme: scheme.name,
)
def scheme(request: pytest.FixtureRequest) -> QuantizationScheme:
    return request.param


@pytest.fixture(params=["uint8-nhwc", "float32-nchw"])
def input_kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.slow
def test_the_graph_computes_what_the_simulation_does(
    source: Source, made: Made, scheme: QuantizationScheme, input_kind: str
) -> None:
    network, graph = made.network(scheme), made.graph(scheme, input_kind)
    simulated = TorchClassifier(network.simulated(), source.preprocessing, "simulation")
    candidate = OnnxClassifier(graph, source.preprocessing, "Q/DQ")

    result = compare(simulated, candidate, EmbeddedPhotos(8, seed=5), source.preprocessing)

    assert result.sqnr_db > 20


@pytest.mark.slow
def test_without_its_pairs_the_graph_has_the_simulations_weights(
    source: Source, made: Made, scheme: QuantizationScheme, input_kind: str
) -> None:
    network, graph = made.network(scheme), made.graph(scheme, input_kind)
    if input_kind == "float32-nchw":
        network = network.reading_floats()
    reference = TorchClassifier(network.with_rounded_weights(), source.preprocessing, "weights")
    candidate = OnnxClassifier(without_pairs(graph), source.preprocessing, "no pairs")

    result = compare(reference, candidate, EmbeddedPhotos(8, seed=5), source.preprocessing)

    assert result.sqnr_db > 90


def bias_doubled(graph: onnx.ModelProto, name: str) -> str:
    bias = next(each for each in graph.graph.initializer if each.name == f"{name}.bias")
    doubled = 2 * onnx.numpy_helper.to_array(bias)
    bias.CopyFrom(onnx.numpy_helper.from_array(doubled, bias.name))
    return name


def scale_doubled(graph: onnx.ModelProto, name: str) -> str:
    wanted = f"{name}.weight/scale"
    scale = next(each for each in graph.graph.initializer if each.name == wanted)
    doubled = 2 * onnx.numpy_helper.to_array(scale)
    scale.CopyFrom(onnx.numpy_helper.from_array(doubled, scale.name))
    return name


@pytest.mark.slow
@pytest.mark.parametrize("fault", [bias_doubled, scale_doubled])
def test_a_wrong_weight_is_named_though_int8_is_noisy(
    source: Source, made: Made, fault: PlantFault
) -> None:
    network, graph = made.network(ASYMMETRIC_UINT8), made.graph(ASYMMETRIC_UINT8)
    culprit = fault(graph, "stages.3.1.expand.conv")
    rounded = TorchClassifier(network.with_rounded_weights(), source.preprocessing, "weights")
    gate = ParityGate(rounded, EmbeddedPhotos(8, seed=5), source.preprocessing)
    candidate = OnnxClassifier(without_pairs(graph), source.preprocessing, "no pairs")

    with pytest.raises(GateError, match=f"first wrong node: {culprit}"):
        gate.check("weights", candidate, ROUNDED_WEIGHTS, before=rounded, rewritten=(STEM,))


@dataclass(frozen=True)
class NoiseTimes:
    """The simulation, with its distance from the exact network scaled."""

    factor: float
    exact: TorchClassifier
    simulated: TorchClassifier
    name: str = "scaled noise"
    execution_precision: str = "INT8"

    def infer(self, batch: NDArray[np.uint8], /) -> NDArray[np.float32]:
        exact = self.exact.infer(batch)
        return exact + self.factor * (self.simulated.infer(batch) - exact)


@pytest.mark.slow
def test_pairs_may_lose_what_the_simulation_loses_in_another_way(
    source: Source, made: Made
) -> None:
    exact = TorchClassifier(source.network, source.preprocessing)
    simulated = TorchClassifier(made.network(ASYMMETRIC_UINT8).simulated(), source.preprocessing)
    gate = ParityGate(exact, EmbeddedPhotos(8, seed=5), source.preprocessing)

    passed = gate.check_noise("quantize", NoiseTimes(-1.0, exact, simulated), simulated)
    with pytest.raises(GateError, match="quantize changed the model"):
        gate.check_noise("quantize", NoiseTimes(1.5, exact, simulated), simulated)
    with pytest.raises(GateError, match="quantize changed the model"):
        gate.check_noise("quantize", NoiseTimes(nan, exact, simulated), simulated)

    assert passed.value("sqnr_db") == pytest.approx(gate.loss(simulated).sqnr_db, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stages.1.0.depthwise.conv", "stages.6.0.project.conv"])
def test_a_wrong_scale_of_an_activation_is_refused(source: Source, made: Made, name: str) -> None:
    network, graph = made.network(ASYMMETRIC_UINT8), made.graph(ASYMMETRIC_UINT8)
    exact = TorchClassifier(source.network, source.preprocessing)
    simulated = TorchClassifier(network.simulated(), source.preprocessing)
    gate = ParityGate(exact, EmbeddedPhotos(16, seed=5), source.preprocessing)
    sound = OnnxClassifier(graph, source.preprocessing, "sound")
    assert gate.check_noise("quantize", sound, simulated).holds

    pair = next(node for node in graph.graph.node if node.name == f"{name}/input/QuantizeLinear")
    scale = next(each for each in graph.graph.initializer if each.name == pair.input[1])
    doubled = onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(scale), "doubled")
    graph.graph.initializer.append(doubled)
    pair.input[1] = doubled.name
    faulty = OnnxClassifier(graph, source.preprocessing, "faulty")

    with pytest.raises(GateError, match="quantize changed the model: SQNR"):
        gate.check_noise("quantize", faulty, simulated)


def test_the_pairs_gate_follows_the_simulation(source: Source) -> None:
    exact = TorchClassifier(source.network, source.preprocessing)
    loss = ParityGate(exact, EmbeddedPhotos(1), source.preprocessing).loss(exact)
    loss = replace(loss, values={"sqnr_db": 20.0, "kl": 0.11})

    def limits(loss: ParityResult, uncertainty: float = 0.0) -> tuple[float, float]:
        gate = simulation_gate(loss, uncertainty)
        assert gate.min_sqnr_db is not None
        assert gate.max_kl is not None
        return gate.min_sqnr_db, gate.max_kl

    assert limits(loss) == pytest.approx((17.0, 0.22), abs=0.01)
    assert limits(loss, 0.1) == pytest.approx((16.1, 0.269), abs=0.01)
    assert limits(loss, 2.0) == pytest.approx((14.0, 0.44), abs=0.01)
    assert limits(replace(loss, values={**loss.values, "kl": 0.01}))[1] == 0.05
    assert limits(replace(loss, values={**loss.values, "sqnr_db": nan}))[0] == 20.0


def test_the_uncertainty_of_a_ratio_is_how_it_varies_from_sample_to_sample() -> None:
    random = np.random.default_rng(0)
    common = random.chisquare(3, (4000, 16))
    noise = common + random.chisquare(3, common.shape)
    other = common + random.chisquare(3, common.shape)

    told = [ratio_uncertainty(*pair) for pair in zip(noise, other, strict=True)]
    ratios = np.log(noise.sum(1) / other.sum(1))

    assert np.mean(told) == pytest.approx(ratios.std(), rel=0.1)
    assert ratio_uncertainty(noise[0], 3 * noise[0]) == pytest.approx(0.0, abs=1e-12)
    assert ratio_uncertainty(noise[0, :1], other[0, :1]) == 0.0
    assert ratio_uncertainty(noise[0], np.zeros(16)) == 0.0


@pytest.mark.sample
def test_every_convolution_reads_integers(made: Made, scheme: QuantizationScheme) -> None:
    graph = made.graph(scheme).graph
    makers = {output: node for node in graph.node for output in node.output}
    initializers = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    readers = [node for node in graph.node if node.op_type in {"Conv", "Gemm"}]
    assert len(readers) == CONVOLUTIONS + 1
    if scheme.symmetric:
        readers = [node for node in readers if node.name != "stem.conv" and ".se." not in node.name]
    if not scheme.quantizes_depthwise:
        readers = [node for node in readers if ".depthwise." not in node.name]
    if not scheme.quantizes_last_projection:
        readers = [node for node in readers if node.name != "stages.6.0.project.conv"]

    for node in readers:
        for name in node.input[:2]:
            assert makers[name].op_type == "DequantizeLinear", node.name
        weight = makers[node.input[1]]
        assert initializers[weight.input[0]].dtype == np.int8
        assert not initializers[weight.input[2]].any()
    zero_points = [
        initializers[node.input[2]]
        for node in graph.node
        if node.op_type == "QuantizeLinear" and not node.name.startswith("preprocess")
    ]
    assert {each.dtype for each in zero_points} == {np.dtype(scheme.dtype)}
    if scheme.symmetric:
        assert not any(each.any() for each in zero_points)


@pytest.mark.slow
def test_openvino_runs_every_convolution_in_int8_with_silu_inside(
    made: Made,
) -> None:
    graph = made.graph(ASYMMETRIC_UINT8)
    core = openvino_core()
    compiled = core.compile_model(core.read_model(graph.SerializeToString()), "CPU")
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    kernels = [
        (info["primitiveType"].astype(str), info["originalLayersNames"].astype(str))
        for info in infos
        if info["layerType"].astype(str) == "Convolution"
    ]

    assert len(kernels) == CONVOLUTIONS
    assert [name for kernel, name in kernels if not kernel.upper().endswith("I8")] == []
    silus = {
        name
        for info in infos
        if info["layerType"].astype(str) in {"Subgraph", "Eltwise", "Swish"}
        for name in info["originalLayersNames"].astype(str).split(",")
        if name.endswith(".act")
    }
    assert silus == set()
