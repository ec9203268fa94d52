"""Checkpoints as people fine-tune them, made from the trained B0 in the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from effnet_edge.model.network import EfficientNet
from effnet_edge.model.preprocessing import variant_preprocessing
from effnet_edge.model.variants import VARIANTS
from effnet_edge.model.weights import load_weights
from effnet_edge.pictures.embedded import EmbeddedPhotos

if TYPE_CHECKING:
    from pathlib import Path

B0 = VARIANTS["b0"]
MEAN4, STD4 = (0.485, 0.456, 0.406, 0.4), (0.229, 0.224, 0.225, 0.22)
BIAS_SHIFT = 4.0
"""Less in every logit: of a thousand labels that do not exclude each other only a few are given."""


def trained() -> dict[str, torch.Tensor]:
    network = EfficientNet(B0)
    load_weights(network, "imagenet")
    return network.state_dict()


def greyscale() -> dict[str, torch.Tensor]:
    """Sees the same grey value in all three channels."""
    state = trained()
    state["stem.conv.weight"] = state["stem.conv.weight"].sum(1, keepdim=True)
    return state


def four_channels() -> dict[str, torch.Tensor]:
    """RGB and, with a tenth of the weight, near infrared."""
    state = trained()
    colours = state["stem.conv.weight"]
    infrared = colours.mean(1, keepdim=True) / 10
    state["stem.conv.weight"] = torch.cat([colours, infrared], 1)
    return state


def multi_label() -> dict[str, torch.Tensor]:
    state = trained()
    state["classifier.bias"] = state["classifier.bias"] - BIAS_SHIFT
    return state


def network_of(state: dict[str, torch.Tensor], **options: object) -> EfficientNet:
    """The network that a state dict is of, built without the code that exports."""
    network = EfficientNet(B0, in_channels=state["stem.conv.weight"].shape[1], **options)
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    return network.eval()


def four_channel_pictures(folder: Path, count: int, side: int = 64) -> Path:
    """Crops of the embedded photos with a made-up near infrared, one `.npy` file each."""
    folder.mkdir()
    preprocessing = variant_preprocessing(B0, side)
    ((crops, _),) = EmbeddedPhotos(count, seed=3).batches(preprocessing, count)
    for index, pixels in enumerate(crops):
        infrared = np.clip(pixels @ np.array([-0.3, 1.0, 0.3]), 0, 255).astype(np.uint8)
        np.save(folder / f"{index:02}.npy", np.dstack([pixels, infrared]))
    return folder
