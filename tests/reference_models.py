"""Networks that no one here wrote, with every parameter and statistic made random."""

from __future__ import annotations

import geffnet
import torch
from efficientnet_pytorch import EfficientNet as LukemelasEfficientNet
from torch import nn


def picture(resolution: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, resolution, resolution, generator=torch.Generator().manual_seed(7))


def efficientnet_pytorch_model(name: str, num_classes: int = 1000) -> nn.Module:
    return LukemelasEfficientNet.from_name(f"efficientnet-{name}", num_classes=num_classes).eval()


def geffnet_model(name: str, num_classes: int = 1000) -> nn.Module:
    """With SAME padding; l2 has a name for its weights alone."""
    named = {"l2": "l2_ns"}.get(name, name)
    return geffnet.create_model(f"tf_efficientnet_{named}", num_classes=num_classes).eval()


def randomized(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """Batch norms that do something, so that a wrong epsilon, order or name shows.

    The statistics are near those of the activations for `x`: deep networks would overflow, and
    rounding errors with them, for any others.
    """
    generator = torch.Generator().manual_seed(0)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.weight.data.uniform_(0.7, 1.3, generator=generator)
        norm.bias.data.uniform_(-0.3, 0.3, generator=generator)
        norm.train()
    with torch.no_grad():
        model(x)
    for norm in norms:
        norm.running_var.mul_(
            torch.empty_like(norm.running_var).uniform_(0.9, 1.1, generator=generator)
        )
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(0, 0.05, generator=generator)
    return model.eval()
