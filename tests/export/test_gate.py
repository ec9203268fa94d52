"""The gate after each stage, fed with stages that break the model."""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
import onnx
import onnxsim
import pytest
import torch
from torch import nn
from torch.nn import functional

from effnet_edge.bundle import BatchRange
from effnet_edge.errors import GateError
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.network import EfficientNet, PaddedConv2d
from effnet_edge.model.request import NetworkRequest
from effnet_edge.model.source import Source, load_source
from effnet_edge.model.variants import VARIANTS
from effnet_edge.parity.models.onnx import OnnxClassifier
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_edge.pictures.embedded import EmbeddedPhotos
from effnet_export.gate import ParityGate
from effnet_export.onnx_graph import export_onnx
from effnet_export.simplify import simplify


@pytest.fixture(scope="module")
def source() -> Source:
    return load_source(NetworkRequest("b0"))


@pytest.fixture(scope="module")
def gate(source: Source) -> ParityGate:
    return ParityGate(
        TorchClassifier(source.network, source.preprocessing),
        EmbeddedPhotos(8),
        source.preprocessing,
    )


@pytest.fixture(scope="module")
def exported(source: Source) -> onnx.ModelProto:
    return export_onnx(
        fold_batch_norm(source.network),
        source.preprocessing,
        input_kind="uint8-nhwc",
        batch=BatchRange(1, 1, 1),
    )


class ShapeDerivedPadding(PaddedConv2d):
    """SAME padding computed from the input's shape, as EfficientNet ports commonly write it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = x.shape[-2:]
        rows = max((math.ceil(height / stride) - 1) * stride + kernel - height, 0)
        columns = max((math.ceil(width / stride) - 1) * stride + kernel - width, 0)
        if rows > 0 or columns > 0:
            x = functional.pad(
                x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2]
            )
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)


def torchscript_export(network: EfficientNet) -> onnx.ModelProto:
    for module in network.modules():
        if isinstance(module, PaddedConv2d):
            module.__class__ = ShapeDerivedPadding
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, 224, 224),),
            buffer,
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}},
        )
    return onnx.load_from_string(buffer.getvalue())


@pytest.fixture(scope="module")
def ported(source: Source) -> onnx.ModelProto:
    return torchscript_export(fold_batch_norm(source.network))


@pytest.mark.sample
def test_the_corrupting_simplifier_is_stopped_at_the_first_wrong_node(
    source: Source, gate: ParityGate, ported: onnx.ModelProto
) -> None:
    """onnxsim's pad fusion misplaces pads where the batch is dynamic, and its check says True."""
    before = OnnxClassifier(ported, source.preprocessing, "TorchScript ONNX")
    gate.check("export", before)

    corrupted, onnxsim_is_content = onnxsim.simplify(ported)

    assert onnxsim_is_content
    wrong_before_the_culprit = first_conv_with_other_padding(corrupted, source.network)
    candidate = OnnxClassifier(corrupted, source.preprocessing, "simplified ONNX")
    with pytest.raises(GateError, match=r"simplify changed the model: .*") as caught:
        gate.check("simplify", candidate, before=before)
    assert f"first wrong node: {wrong_before_the_culprit} (Conv" in str(caught.value)
    assert "other amounts than the reference's node before" in str(caught.value)


def first_conv_with_other_padding(model: onnx.ModelProto, network: EfficientNet) -> str:
    """The output of the first convolution whose pads are not TensorFlow's, worked out here."""
    size = network.resolution.height
    spatial = [
        node
        for node in model.graph.node
        if node.op_type == "Conv"
        and next(list(a.ints) for a in node.attribute if a.name == "kernel_shape")[0] > 1
    ]
    for node in spatial:
        attributes = {a.name: list(a.ints) for a in node.attribute if a.ints}
        kernel, stride = attributes["kernel_shape"][0], attributes["strides"][0]
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        right = [total // 2, total // 2, total - total // 2, total - total // 2]
        if attributes["pads"] != right:
            return node.output[0]
        size = math.ceil(size / stride)
    raise AssertionError("onnxsim corrupted nothing: is it another version?")


@pytest.mark.sample
def test_our_simplifier_passes_the_same_graph(
    source: Source, gate: ParityGate, ported: onnx.ModelProto
) -> None:
    simplified = OnnxClassifier(simplify(ported), source.preprocessing, "simplified ONNX")

    assert gate.check("simplify", simplified).holds


def changed(model: onnx.ModelProto, node_name: str, attribute: str, value: list[int]):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    node = next(node for node in copy.graph.node if node.name == node_name)
    kept = [each for each in node.attribute if each.name != attribute]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(attribute, value)])
    return copy


@pytest.mark.parametrize(
    "node", [pytest.param("stem.conv", marks=pytest.mark.sample), "stages.2.0.depthwise.conv"]
)
def test_shifted_pads_are_found_at_their_node(
    source: Source, gate: ParityGate, exported: onnx.ModelProto, node: str
) -> None:
    right = next(
        list(each.ints)
        for item in exported.graph.node
        if item.name == node
        for each in item.attribute
        if each.name == "pads"
    )
    broken = changed(exported, node, "pads", right[2:] + right[:2])

    with pytest.raises(GateError, match=rf"first wrong node: {node} \(Conv, pads"):
        gate.check(
            "export",
            OnnxClassifier(broken, source.preprocessing),
            before=TorchClassifier(fold_batch_norm(source.network), source.preprocessing),
        )


def with_initializer(model: onnx.ModelProto, name: str, change) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = next(each for each in copy.graph.initializer if each.name == name)
    value = change(onnx.numpy_helper.to_array(tensor).copy()).astype(np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(value, name))
    return copy


@pytest.mark.parametrize(
    ("tensor", "change", "culprit"),
    [
        ("stages.3.1.depthwise.conv.weight", lambda w: w.swapaxes(2, 3), "stages.3.1.depthwise"),
        ("stages.5.2.project.conv.bias", lambda b: b * 2, "stages.5.2.project.conv"),
        ("head.conv.weight", lambda w: w * np.nan, "head.conv"),
    ],
)
def test_wrong_weights_are_found_at_their_node(
    source: Source, gate: ParityGate, exported: onnx.ModelProto, tensor: str, change, culprit: str
) -> None:
    broken = with_initializer(exported, tensor, change)

    with pytest.raises(GateError, match=f"first wrong node: {culprit}"):
        gate.check(
            "export",
            OnnxClassifier(broken, source.preprocessing),
            before=TorchClassifier(fold_batch_norm(source.network), source.preprocessing),
        )


def test_swapped_colours_do_not_pass(source: Source, gate: ParityGate, exported) -> None:
    class Bgr(OnnxClassifier):
        def infer(self, batch, /):
            return super().infer(np.ascontiguousarray(batch[..., ::-1]))

    with pytest.raises(GateError, match="relative error"):
        gate.check("export", Bgr(exported, source.preprocessing, "BGR"))


def test_a_healthy_export_passes_with_the_figures_of_the_issue(
    source: Source, gate: ParityGate, exported: onnx.ModelProto
) -> None:
    parity = gate.check("export", OnnxClassifier(exported, source.preprocessing))

    assert parity.measures["relative_error"].value < 1e-4
    assert parity.value("top1_agreement") == 1.0
    assert parity.images == 8


def test_the_reference_is_the_network_before_folding(source: Source) -> None:
    assert any(isinstance(module, nn.BatchNorm2d) for module in source.network.modules())
    assert source.network.variant is VARIANTS["b0"]
