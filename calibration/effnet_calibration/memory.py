"""How many pictures are worked on at once, so that memory does not grow with the resolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from effnet_calibration.path import NetworkPath

if TYPE_CHECKING:
    from effnet_calibration.path import Layer
    from effnet_edge.model.network import EfficientNet, PaddedConv2d

HELD_BYTES = 2 << 30
FEWEST_HELD = 8

LARGEST_BATCH = 10
LARGEST_TENSOR_BYTES = 64 << 20


def batch_size(network: EfficientNet) -> int:
    """Pictures to compute at once: as many as keep the network's largest tensor small."""
    maps = [layer for layer in NetworkPath.of(network).main if layer.kind != "classifier"]
    largest = 4 * max(output_size(network, layer) for layer in maps)
    return max(1, min(LARGEST_BATCH, LARGEST_TENSOR_BYTES // largest))


def images_in_memory(network: EfficientNet, held_bytes: int = HELD_BYTES) -> int:
    """How many pictures' activations fit between any two blocks, with the shortcut."""
    ends = [layer for layer in NetworkPath.of(network) if layer.adds_to is not None]
    largest = 2 * max(output_size(network, layer) for layer in ends)
    return max(FEWEST_HELD, held_bytes // (4 * largest))


def pictures_at_once(network: EfficientNet, maps: float) -> int:
    """How many fit of which each takes that many of the network's largest maps, 1 at least."""
    layers = [layer for layer in NetworkPath.of(network).main if layer.kind != "classifier"]
    largest = max(output_size(network, layer) for layer in layers)
    return max(1, int(HELD_BYTES / (4 * maps * largest)))


def output_size(network: EfficientNet, layer: Layer) -> int:
    """Values in a convolution's output for one picture."""
    conv = cast("PaddedConv2d", layer.module(network))
    return conv.out_channels * conv.input_size.strided(conv.stride[0]).pixels
