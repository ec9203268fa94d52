"""Models with other names for their tensors are compared by layer all the same."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from exported_b0 import RESOLUTION, exported_b0
from later import quick
from planted_faults import FLOAT_FAULTS
from reference_models import efficientnet_pytorch_model, geffnet_model, picture, randomized

from effnet_edge.graphs.editing import copied, rename_tensors
from effnet_edge.graphs.tensors import initializers, set_value
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.preprocessing import variant_preprocessing
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import load_source
from effnet_edge.model.variants import VARIANTS
from effnet_edge.model.weights import load_weights
from effnet_edge.parity.inside.alignment import shares_layers
from effnet_edge.parity.inside.bisection import find_faults
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.pictures.embedded import EmbeddedPhotos

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

LAYERS = 82
PREPROCESSING = variant_preprocessing(VARIANTS["b0"], RESOLUTION)


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    return np.concatenate([pixels for pixels, _ in EmbeddedPhotos(2).batches(PREPROCESSING, 2)])


@pytest.fixture(scope="module")
def network() -> TorchClassifier:
    network = load_source(NetworkRequest("b0", resolution=RESOLUTION)).network
    return TorchClassifier(fold_batch_norm(network), PREPROCESSING)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return exported_b0(tmp_path_factory)


def with_other_names(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The model, its tensors numbered, and what they were called."""
    other = copied(model)
    outputs = {each.name for each in model.graph.output}
    inner = [name for node in model.graph.node for name in node.output if name not in outputs]
    numbers = {name: f"t{index}" for index, name in enumerate(inner)}
    for node in other.graph.node:
        node.name = ""
    rename_tensors(other.graph, numbers)
    return other, {number: name for name, number in numbers.items()}


def foreign(model: onnx.ModelProto, reference: TorchClassifier) -> OnnxClassifier:
    other, _ = with_other_names(model)
    return OnnxClassifier(other, PREPROCESSING, "foreign").named_like(reference)


@pytest.mark.slow
def test_every_layer_and_activation_gets_its_name(
    network: TorchClassifier, exported: onnx.ModelProto
) -> None:
    other, _ = with_other_names(exported)
    unnamed = OnnxClassifier(other, PREPROCESSING, "foreign")
    assert not shares_layers(network, unnamed)

    named = unnamed.named_like(network)

    assert shares_layers(network, named)
    have = {name for kernel in named.kernels() for name in kernel.tensors}
    layers = [
        name
        for kernel in network.kernels()
        for name in kernel.tensors
        if network.parameters(name) is not None or name.endswith(".act")
    ]
    assert len(layers) > LAYERS
    assert set(layers) <= have
    ours = OnnxClassifier(exported, PREPROCESSING)
    zeros = np.zeros((1, RESOLUTION, RESOLUTION, 3), np.uint8)
    for name, value in ours.activations(zeros, layers).items():
        np.testing.assert_array_equal(named.activations(zeros, [name])[name], value)


def test_a_sound_model_with_other_names_has_no_fault(
    network: TorchClassifier, exported: onnx.ModelProto, photos: np.ndarray
) -> None:
    findings = find_faults(network, foreign(exported, network), photos)

    assert findings.faults == ()
    assert findings.nodes > LAYERS


@pytest.mark.parametrize("seed", quick({0}, range(3), others="sample"))
@pytest.mark.parametrize(
    "kind", ["shifted pads", "transposed weight", "swapped channels", "eps 1e-5", "dropped SiLU"]
)
def test_planted_faults_are_located(
    network: TorchClassifier, exported: onnx.ModelProto, photos: np.ndarray, kind: str, seed: int
) -> None:
    planted = FLOAT_FAULTS[kind](exported, np.random.default_rng(seed))

    found = find_faults(network, foreign(planted.model, network), photos).first

    assert found is not None
    assert found.node == planted.node
    assert found.kind in planted.kinds


def torchscript_export(model: nn.Module, file: Path) -> onnx.ModelProto:
    sample = torch.zeros(2, 3, RESOLUTION, RESOLUTION)
    buffer = io.BytesIO()
    torch.onnx.export(model, (sample,), buffer, dynamo=False)
    file.write_bytes(buffer.getvalue())
    return onnx.load(file)


@pytest.mark.slow
@pytest.mark.parametrize("origin", ["geffnet", "efficientnet-pytorch"])
def test_models_of_other_people_exported_by_their_own_means(
    origin: str, photos: np.ndarray, tmp_path: Path
) -> None:
    make = {"geffnet": geffnet_model, "efficientnet-pytorch": efficientnet_pytorch_model}[origin]
    model = randomized(make("b0"), picture(RESOLUTION, 8))
    if origin == "efficientnet-pytorch":
        model.set_swish(memory_efficient=False)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    network = EfficientNet(VARIANTS["b0"], resolution=RESOLUTION)
    load_weights(network, str(tmp_path / "weights.pth"))
    reference = TorchClassifier(fold_batch_norm(network), PREPROCESSING)
    graph = torchscript_export(model, tmp_path / "foreign.onnx")

    sound = OnnxClassifier(graph, PREPROCESSING, origin).named_like(reference)
    findings = find_faults(reference, sound, photos)
    assert [str(fault) for fault in findings.faults] == []
    assert findings.nodes > LAYERS

    values = initializers(graph.graph)
    weights = [name for name, each in values.items() if each.ndim == 4 and each.shape[2] > 1]
    set_value(graph.graph, weights[4], values[weights[4]].swapaxes(2, 3))
    broken = OnnxClassifier(graph, PREPROCESSING, origin).named_like(reference)
    (fault,) = find_faults(reference, broken, photos).faults
    assert fault.kind == "transposed"
    assert ".depthwise.conv" in fault.node
