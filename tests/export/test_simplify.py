"""What the simplifier must leave alone."""

from __future__ import annotations

import torch

from effnet_calibration.equalization import equalize_projection
from effnet_calibration.path import NetworkPath
from effnet_edge.bundle import BatchRange
from effnet_edge.model.folding import fold_batch_norm
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.preprocessing import variant_preprocessing
from effnet_edge.model.variants import VARIANTS
from effnet_export.onnx_graph import export_onnx
from effnet_export.simplify import simplify


def test_the_factors_before_a_projection_stay_where_they_are_quantized() -> None:
    variant = VARIANTS["lite0"]
    network = fold_batch_norm(EfficientNet(variant, resolution=32))
    path = NetworkPath.of(network)
    equalize_projection(network, path, path["stages.1.1.project.conv"], torch.linspace(0.5, 2, 144))

    graph = export_onnx(
        network,
        variant_preprocessing(variant, 32),
        input_kind="uint8-nhwc",
        batch=BatchRange(1, 1, 1),
    )

    nodes = {node.name: node for node in simplify(graph).graph.node}
    assert nodes["stages.1.1.depthwise.act"].op_type == "Mul"
    assert nodes["stages.1.1.project.conv"].input[0] == "stages.1.1.depthwise.act"
