"""PyTorch → ONNX, with the names of the PyTorch modules on every node and tensor."""

from __future__ import annotations

import ast
import logging
import warnings
from collections import Counter
from typing import TYPE_CHECKING

import torch

from effnet_edge.errors import EffnetEdgeError, first_line
from effnet_edge.graphs.editing import rename_tensors
from effnet_edge.outputs import OUTPUT_NAMES
from effnet_export.deployed import NETWORK_PREFIX, DeployedNetwork, InputKind, example_input

if TYPE_CHECKING:
    import onnx

    from effnet_edge.bundle import BatchRange
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.pictures.image import Preprocessing

# The exporter's own opset, so that no version converter runs, and the newest that every target
# reads: TensorRT 10.0 parses up to 20, JetPack's onnxruntime builds and OpenVINO 2024 read 18.
OPSET = 18

INPUT_NAME = "image"

_SCOPES = "pkg.torch.onnx.name_scopes"


def export_onnx(
    network: EfficientNet,
    preprocessing: Preprocessing,
    *,
    input_kind: InputKind,
    batch: BatchRange,
) -> onnx.ModelProto:
    """Export a folded network with the dynamo exporter.

    The result takes `image`, uint8 (N, H, W, C) or float32 (N, C, H, W), and gives `logits`,
    float32 (N, classes), or `features`, (N, head channels), without a classifier. The batch
    dimension is called "batch" where the range is dynamic.

    Raises:
        EffnetEdgeError: the exporter failed.
    """
    deployed = DeployedNetwork(network, preprocessing, input_kind).eval()
    in_channels = network.stem.conv.in_channels
    example = example_input(network, in_channels, input_kind, max(batch.optimum, 2))
    dynamic = batch.minimum != batch.maximum
    if not dynamic:
        example = example[:1].repeat_interleave(batch.optimum, 0)
    shapes = ({0: torch.export.Dim("batch", min=1, max=batch.maximum)},) if dynamic else None
    try:
        with warnings.catch_warnings(), _quiet_exporter():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                deployed,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAMES[network.output_kind]],
                dynamic_shapes=shapes,
            )
    except Exception as error:
        raise EffnetEdgeError(f"the ONNX exporter failed: {first_line(error)}") from error
    if program is None:
        raise EffnetEdgeError("the ONNX exporter gave no model")
    model = program.model_proto
    name_by_module(model)
    return model


class _quiet_exporter:  # noqa: N801 - reads as a statement
    """The exporter logs notes about itself that no user can act on."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger("torch.onnx")
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *exception: object) -> None:
        self._logger.setLevel(self._level)


def name_by_module(model: onnx.ModelProto) -> None:
    """Rename nodes and tensors after the PyTorch modules that they come from, in place.

    The last node of a module carries the module's path (`stages.1.0.depthwise.conv`), as does its
    output; the ones before it, path and operation (`stages.1.0.depthwise.act/Sigmoid`).
    """
    graph = model.graph
    scopes = [_module_path(node) for node in graph.node]
    last = {scope: index for index, scope in enumerate(scopes)}
    fixed = {value.name for value in (*graph.input, *graph.output)}
    used: Counter[str] = Counter()
    renamed = {}
    for index, (node, scope) in enumerate(zip(graph.node, scopes, strict=True)):
        own_name = scope if scope and last[scope] == index else f"{scope}/{node.op_type}".strip("/")
        used[own_name] += 1
        name = own_name if used[own_name] == 1 else f"{own_name}_{used[own_name]}"
        node.name = name
        for position, output in enumerate(node.output):
            if output and output not in fixed:
                renamed[output] = name if position == 0 else f"{name}:{position}"
        del node.metadata_props[:]
    for initializer in graph.initializer:
        renamed[initializer.name] = initializer.name.removeprefix(NETWORK_PREFIX)
    rename_tensors(graph, renamed)
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]


def _module_path(node: onnx.NodeProto) -> str:
    """The path of the innermost module; the exporter lists the scopes, the operation last."""
    texts = [entry.value for entry in node.metadata_props if entry.key == _SCOPES]
    scopes = ast.literal_eval(texts[0]) if texts else [""]
    path = scopes[-2] if len(scopes) > 1 else ""
    return str(path).removeprefix(NETWORK_PREFIX).removeprefix("network")
