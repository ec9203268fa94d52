"""Networks that are not square, against geffnet and efficientnet-pytorch.

Both pad as TensorFlow does at every call, by the size of what they are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from efficientnet_pytorch import EfficientNet as LukemelasEfficientNet
from geffnet.conv2d_layers import Conv2dSame
from hypothesis import given, settings
from hypothesis import strategies as st
from later import quick
from reference_models import geffnet_model, randomized
from test_network import assert_same_logits, take_over

from effnet_edge.model.network import EfficientNet, PaddedConv2d
from effnet_edge.model.variants import VARIANTS
from effnet_edge.size import Size

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

# 95 and 97 px make feature maps whose height is even where their width is odd, and the other way.
SIZES = [Size(192, 320), Size(320, 192), Size(95, 64), Size(97, 190)]


def picture(size: Size) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(1, 3, size.height, size.width, generator=generator)


def dynamic_efficientnet_pytorch(name: str) -> nn.Module:
    """Without an image size, by which it would fix its padding."""
    return LukemelasEfficientNet.from_name(f"efficientnet-{name}", image_size=None).eval()


@pytest.mark.parametrize("size", quick(SIZES[::3], SIZES, others="sample"), ids=str)
@pytest.mark.parametrize("theirs_of", [geffnet_model, dynamic_efficientnet_pytorch])
def test_logits_are_those_of_networks_that_pad_as_they_go(
    theirs_of: Callable[[str], nn.Module], size: Size
) -> None:
    x = picture(size)
    theirs = randomized(theirs_of("b0"), x)
    ours = EfficientNet(VARIANTS["b0"], resolution=size).eval()
    take_over(ours, theirs)

    assert_same_logits(ours, theirs, x)


@pytest.mark.parametrize("name", ["lite0", "es"])
def test_logits_of_other_families_are_those_of_geffnet(name: str) -> None:
    size = Size(150, 213)
    x = picture(size)
    theirs = randomized(geffnet_model(name), x)
    ours = EfficientNet(VARIANTS[name], resolution=size).eval()
    take_over(ours, theirs)

    assert_same_logits(ours, theirs, x)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    kernel=st.sampled_from([1, 3, 5, 7]),
    stride=st.integers(1, 3),
)
@settings(max_examples=200, deadline=None)
def test_padding_fixed_for_a_size_is_geffnets_padding_at_run_time(
    height: int, width: int, kernel: int, stride: int
) -> None:
    size = Size(height, width)
    theirs = Conv2dSame(2, 3, kernel, stride, bias=False)
    ours = PaddedConv2d(2, 3, kernel, stride, input_size=size, padding="same")
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 2, height, width)

    with torch.no_grad():
        found, expected = ours(x), theirs(x)

    torch.testing.assert_close(found, expected)
    strided = size.strided(stride)
    assert found.shape[2:] == (strided.height, strided.width)


def test_height_and_width_are_not_mistaken_for_each_other() -> None:
    network = EfficientNet(VARIANTS["b0"], resolution=Size(64, 96))

    with pytest.raises(ValueError, match="96×64 px.*64×96"):
        network(torch.zeros(1, 3, 96, 64))


def test_a_rectangles_multiply_adds_are_those_of_its_convolutions() -> None:
    size, counts = Size(75, 130), []
    network = EfficientNet(VARIANTS["b0"], resolution=size).eval()

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        counts.append(module.weight.numel() * (output[0, 0].numel() if output.dim() == 4 else 1))

    for module in network.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(count)
    with torch.inference_mode():
        network(picture(size))

    assert sum(counts) == VARIANTS["b0"].multiply_adds(size)
