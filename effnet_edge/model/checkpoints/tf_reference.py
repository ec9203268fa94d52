"""Checkpoints of the authors' TensorFlow code, github.com/tensorflow/tpu and google/automl."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_edge.model.checkpoints.tensorflow_layout import LEAF_NAMES, to_pytorch
from effnet_edge.model.checkpoints.tf_bundle import read_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

AVERAGED = "/ExponentialMovingAverage"


def read_tf_checkpoint(index: Path) -> tuple[dict[str, Tensor], list[Path]]:
    """Tensors in PyTorch's layout, and the files that were read for them.

    `efficientnet-b0/blocks_1/conv2d/kernel` becomes `blocks_1/conv2d.weight`. Where the checkpoint
    has a variable's moving average, that is taken: the authors evaluate with it.

    Raises:
        CheckpointError: as `read_bundle`.
    """
    variables, files = read_bundle(index, _is_weight)
    names = {name.removesuffix(AVERAGED) for name in variables}
    tensors = {}
    for name in sorted(names):
        values = variables.get(name + AVERAGED, variables.get(name))
        if values is not None:
            tensors[_pytorch_name(name)] = to_pytorch(values)
    return tensors, files


def _is_weight(name: str) -> bool:
    return name.removesuffix(AVERAGED).rpartition("/")[2] in LEAF_NAMES


def _pytorch_name(name: str) -> str:
    layer, _, leaf = name.rpartition("/")
    return f"{_without_model(layer)}.{LEAF_NAMES[leaf]}"


def _without_model(layer: str) -> str:
    """The path without the model's name, "efficientnet-b0" or whatever it is called."""
    parts = layer.split("/")
    known = [
        index
        for index, part in enumerate(parts)
        if part in ("stem", "head") or part.startswith("blocks_")
    ]
    return "/".join(parts[known[0] :]) if known else layer
