"""The network as a device meets it: camera pixels in, logits out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.pictures.image import Preprocessing

InputKind = Literal["uint8-nhwc", "float32-nchw"]

NETWORK_PREFIX = "network."


class PixelsToTensor(nn.Module):
    """uint8 pixels (N, H, W, 3) → normalized float32 (N, 3, H, W), as one multiply and one add."""

    scale: Tensor
    shift: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        mean = torch.tensor(preprocessing.mean, dtype=torch.float64).view(1, -1, 1, 1)
        std = torch.tensor(preprocessing.std, dtype=torch.float64).view(1, -1, 1, 1)
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("shift", (-mean / std).float())

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift


class DeployedNetwork(nn.Module):
    """The network with its normalization in front, where the input is pixels."""

    def __init__(
        self, network: EfficientNet, preprocessing: Preprocessing, input_kind: InputKind
    ) -> None:
        super().__init__()
        self.preprocess: nn.Module = (
            PixelsToTensor(preprocessing) if input_kind == "uint8-nhwc" else nn.Identity()
        )
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(self.preprocess(image))
        return logits


def example_input(
    network: EfficientNet, in_channels: int, input_kind: InputKind, batch: int
) -> Tensor:
    """Zeros of the input's shape and type."""
    height, width = network.resolution.height, network.resolution.width
    if input_kind == "uint8-nhwc":
        return torch.zeros(batch, height, width, in_channels, dtype=torch.uint8)
    return torch.zeros(batch, in_channels, height, width)
