"""A stem that reads 8-bit pixels as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from effnet_calibration.integer_weights import QuantizedWeight

if TYPE_CHECKING:
    from effnet_calibration.quantization import PixelNormalization
    from effnet_calibration.schemes import QuantizationScheme
    from effnet_edge.model.network import EfficientNet

LARGEST_PIXEL = 255


@dataclass(frozen=True)
class PixelStem:
    """A stem that reads uint8 pixels, so that it runs in INT8 and its input loses nothing.

    W·(p/255 − m)/s = (W/s)·((p − z)/255) + (W/s)·(z − 255m)/255 with z = round(255m): the
    integers p with scale 1/255 and zero point z take the place of the normalization.
    Zero padding then stands for the pixel value z where the exact one is 255m: border pixels
    are off by at most half a pixel step, all others exact; with one z for all channels, by as far
    as their means lie apart.

    Attributes:
        weight: W/s, rounded.
        bias: what is to be added to the stem's, float64 (output channels,).
        zero_point: z, float64 (input channels,).
        normalization: m and s.
    """

    weight: QuantizedWeight
    bias: Tensor
    zero_point: Tensor
    normalization: PixelNormalization

    @classmethod
    def of(
        cls, network: EfficientNet, normalization: PixelNormalization, scheme: QuantizationScheme
    ) -> PixelStem:
        """Round a network's stem as the scheme does, which may have one zero point a tensor."""
        mean, std = _per_channel(normalization)
        zero_point = _zero_point(mean, scheme)
        kernel = network.stem.conv.weight.detach().double() / std
        shift = kernel.sum((2, 3)) @ (zero_point / LARGEST_PIXEL - mean).flatten()
        weight = QuantizedWeight.of(kernel.float(), scheme.weight_limit)
        return cls(weight, shift, zero_point.flatten(), normalization)

    def simulate_in(self, network: EfficientNet) -> None:
        """Make a network that reads normalized pixels, float32 (N, C, H, W), compute the same."""
        mean, std = _per_channel(self.normalization)
        moved = ((self.zero_point.view_as(mean) / LARGEST_PIXEL - mean) / std).float()
        stem = network.stem.conv
        stem.weight.data.copy_(self.weight.dequantized() * std.float())
        cast("Tensor", stem.bias).data += self.bias.float()
        stem.register_forward_pre_hook(lambda _, inputs: (inputs[0] - moved,))


def holds_pixels(normalization: PixelNormalization, scheme: QuantizationScheme) -> bool:
    """Whether the stem may read integers: the scheme lets it, and its zero points are pixels.

    A mean below 0 or above 1 is darker or brighter than every pixel.
    """
    zero_point = _zero_point(_per_channel(normalization)[0], scheme)
    return scheme.quantizes_stem and bool(((zero_point >= 0) & (zero_point <= LARGEST_PIXEL)).all())


def _zero_point(mean: Tensor, scheme: QuantizationScheme) -> Tensor:
    """Of each channel, (1, C, 1, 1); the same for all where the scheme has one a tensor."""
    pixel = LARGEST_PIXEL * mean
    return pixel.mean().round().expand_as(mean) if scheme.rounds_outputs else pixel.round()


def _per_channel(normalization: PixelNormalization) -> tuple[Tensor, Tensor]:
    """Mean and deviation, float64 (1, C, 1, 1)."""
    mean, std = (
        torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)
        for values in (normalization.mean, normalization.std)
    )
    return mean, std
