"""Checkpoints of the authors' TensorFlow code, github.com/tensorflow/tpu and google/automl."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from effnet_edge.model.checkpoints.tensorflow_layout import LEAF_NAMES, to_pytorch
from effnet_edge.model.checkpoints.tf_bundle import read_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

AVERAGED = "/ExponentialMovingAverage"
_BEFORE_PARTS = re.compile(r"(?:[^/]+/)*?(?=(?:stem|head|blocks_[^/]*)/)")


def read_tf_checkpoint(index: Path) -> tuple[dict[str, Tensor], list[Path]]:
    """Tensors in PyTorch's layout, and the files that were read for them.

    `efficientnet-b0/blocks_1/conv2d/kernel` becomes `blocks_1/conv2d.weight`, and keeps its model's
    name where there are several models. Where the checkpoint
    has a variable's moving average, that is taken: the authors evaluate with it.

    Raises:
        CheckpointError: as `read_bundle`.
    """
    variables, files = read_bundle(index, _is_weight)
    names = {name.removesuffix(AVERAGED) for name in variables}
    models = {_model(name) for name in names} - {None}
    only = next(iter(models)) if len(models) == 1 else None
    tensors = {}
    for name in sorted(names):
        values = variables.get(name + AVERAGED, variables.get(name))
        if values is not None:
            tensors[_pytorch_name(name.removeprefix(only or ""))] = to_pytorch(values)
    return tensors, files


def _is_weight(name: str) -> bool:
    return name.removesuffix(AVERAGED).rpartition("/")[2] in LEAF_NAMES


def _pytorch_name(name: str) -> str:
    layer, _, leaf = name.rpartition("/")
    return f"{layer}.{LEAF_NAMES[leaf]}"


def _model(name: str) -> str | None:
    """What comes before a network's parts, "efficientnet-b0/" or whatever it is called."""
    found = _BEFORE_PARTS.match(name)
    return found[0] if found else None
