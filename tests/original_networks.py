"""Networks of the packages that checkpoints come from, with tensors that bear rounding."""

from __future__ import annotations

from functools import cache
from typing import Any

import geffnet
import torch
from conditioned_networks import conditioned_network
from torch import nn

from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES, translate

SIDE = 64


@cache
def trained_like(scheme_name: str) -> dict[str, torch.Tensor]:
    """Tensors by a naming, of a network that does not amplify rounding errors.

    Its variances are small, so that batch norm's epsilon counts for more than rounding.
    """
    state = conditioned_network("b0", SIDE, classes=3).state_dict()
    for name, tensor in state.items():
        if name.endswith("running_var"):
            tensor.div_(100)
        elif name.endswith("bn.weight"):
            tensor.div_(10)
    scheme = next(each for each in NAMING_SCHEMES if each.name == scheme_name)
    return {theirs: state[ours].clone() for ours, theirs in translate(state, scheme).items()}


def geffnet_network(name: str, **options: Any) -> nn.Module:
    model = geffnet.create_model(name, num_classes=3, **options).eval()
    model.load_state_dict(trained_like("geffnet"), strict=False)
    return model


class MaxPooled(nn.Module):
    """geffnet's network, which has no such option, with timm's global_pool="max"."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.classifier(self.model.features(x).amax((2, 3)))
