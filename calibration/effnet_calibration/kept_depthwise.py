"""Depthwise convolutions left in 16 bit: what reads the tensors that lose most in 8.

They are a tenth of the multiply-adds and less. In 8 bit an engine still has the zero point to take
out of every sum, and the layer before has to round: on a small map that costs more time than half
the bytes save (docs/figures.md, "Signed bytes and small depthwise convolutions").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from effnet_calibration.work import Step

if TYPE_CHECKING:
    from effnet_calibration.path import Layer
    from effnet_calibration.quantization import Quantization
    from effnet_calibration.work import Work
    from effnet_edge.model.network import PaddedConv2d

SMALL_PIXELS = 28 * 28
"""Of the map that is read, at most. Of B0's sixteen the last twelve; a ReLU costs an engine so
little that none is worth it in a network that has them."""


def _decide(work: Work, quantization: Quantization) -> Quantization:
    def is_kept(layer: Layer) -> bool:
        if work.settings.keep_depthwise == "all":
            return True
        return work.network.activation == "silu" and _pixels_read(work, layer) <= SMALL_PIXELS

    if work.settings.keep_depthwise == "none":
        return quantization
    names = (layer.name for layer in work.path.of_kind("depthwise") if is_kept(layer))
    return quantization.keeping((*quantization.kept, *names))


def _pixels_read(work: Work, layer: Layer) -> int:
    return cast("PaddedConv2d", layer.module(work.network)).input_size.pixels


STEP = Step(_decide)
