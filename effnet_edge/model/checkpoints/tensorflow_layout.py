"""Tensors as TensorFlow and Keras keep them, turned to PyTorch's names and axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

LEAF_NAMES = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""A layer's variable in TensorFlow → the parameter or buffer of PyTorch's layer."""


def to_pytorch(values: npt.NDArray[np.floating]) -> Tensor:
    """A variable with its axes in PyTorch's order.

    (H, W, in, out) → (out, in, H, W); of a depthwise convolution (H, W, channels, 1) →
    (channels, 1, H, W); of a dense layer (in, out) → (out, in). Vectors stay as they are.
    """
    import torch

    if values.ndim == 4:
        is_depthwise = values.shape[3] == 1
        values = values.transpose((2, 3, 0, 1) if is_depthwise else (3, 2, 0, 1))
    elif values.ndim == 2:
        values = values.transpose()
    return torch.from_numpy(np.array(values, order="C"))
