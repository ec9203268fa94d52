"""How many pictures are worked on at once, so that memory does not grow with the resolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_calibration.sites import blocks
from effnet_edge.model.network import ConvBnAct

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet_edge.model.network import EfficientNet

HELD_BYTES = 2 << 30
FEWEST_HELD = 8

LARGEST_BATCH = 10
LARGEST_TENSOR_BYTES = 64 << 20


def batch_size(network: EfficientNet) -> int:
    """Pictures to compute at once: as many as keep the network's largest tensor small."""
    largest = 4 * max(_tensor_sizes(network))
    return max(1, min(LARGEST_BATCH, LARGEST_TENSOR_BYTES // largest))


def images_in_memory(network: EfficientNet, held_bytes: int = HELD_BYTES) -> int:
    """How many pictures' activations fit between any two blocks, with the shortcut."""
    largest = 2 * max(_stream_sizes(network))
    return max(FEWEST_HELD, held_bytes // (4 * largest))


def _tensor_sizes(network: EfficientNet) -> Iterator[int]:
    """Values in every convolution's output for one picture."""
    for module in network.modules():
        if isinstance(module, ConvBnAct):
            conv = module.conv
            yield conv.out_channels * (-(-conv.input_size // conv.stride[0])) ** 2


def _stream_sizes(network: EfficientNet) -> Iterator[int]:
    """Values in every block's output for one picture."""
    for _, block in blocks(network):
        conv = block.project.conv
        yield conv.out_channels * (-(-conv.input_size // conv.stride[0])) ** 2
