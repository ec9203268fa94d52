"""Batch norm folded into the convolutions before it: the network that every engine gets."""

from __future__ import annotations

import copy

import torch
from torch import nn

from effnet_edge.model.network import ConvBnAct, EfficientNet


def fold_batch_norm(network: EfficientNet) -> EfficientNet:
    """A copy in evaluation mode whose batch norms are part of the convolutions.

    conv(x)·γ/√(σ²+ε) + β − μγ/√(σ²+ε) is again a convolution. The factors are computed in float64
    so that a checkpoint that was folded before comes out unchanged. Module names stay the same.
    """
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, ConvBnAct) and isinstance(module.bn, nn.BatchNorm2d):
            _fold(module.conv, module.bn)
            module.bn = nn.Identity()
    return folded.requires_grad_(False)


def _fold(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> None:
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = bn.bias.double() - bn.running_mean.double() * scale
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype))
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype))
