"""Whether the network reads 8-bit pixels as they are; see `pixel_stem`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from effnet_calibration.pixel_stem import holds_pixels
from effnet_calibration.quantization import PixelNormalization
from effnet_calibration.work import Step

if TYPE_CHECKING:
    from effnet_calibration.quantization import Quantization
    from effnet_calibration.work import Work


def _decide(work: Work, quantization: Quantization) -> Quantization:
    """Let the stem read integers where the scheme can hold pixels and their padding."""
    normalization = PixelNormalization.of(work.preprocessing)
    if not holds_pixels(normalization, work.scheme):
        return quantization
    return replace(quantization, pixels=normalization)


STEP = Step(_decide)
