"""What the last blocks read, left in 16 bit where a target can afford it.

Nothing averages its noise out: behind it are the head and the classifier alone. On B0 the layers
kept are three quarters of what INT8 loses. The calibration pictures do not tell which of them cost
most (docs/figures.md, "The last blocks in 16 bit"), so that they are chosen by where they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_calibration.work import Step

if TYPE_CHECKING:
    from effnet_calibration.path import Layer, NetworkPath
    from effnet_calibration.quantization import Quantization
    from effnet_calibration.work import Work
    from effnet_edge.model.network import EfficientNet

PROJECTIONS = 4
"""Of so many last blocks."""


def kept_layers(network: EfficientNet, path: NetworkPath) -> list[str]:
    """Names of the last blocks' projections, and of the last one's depthwise and squeeze layers.

    Of a network with ReLUs none: there they lose next to nothing in 8 bit.
    """
    if network.activation != "silu":
        return []
    last = path.blocks[-PROJECTIONS:]

    def is_kept(layer: Layer) -> bool:
        if layer.kind in {"depthwise", "squeeze"}:
            return layer.block == last[-1]
        return layer.kind == "project" and layer.block in last

    return [layer.name for layer in path if is_kept(layer)]


def _decide(work: Work, quantization: Quantization) -> Quantization:
    if not work.settings.keep_last_blocks:
        return quantization
    return quantization.keeping((*quantization.kept, *kept_layers(work.network, work.path)))


STEP = Step(_decide)
