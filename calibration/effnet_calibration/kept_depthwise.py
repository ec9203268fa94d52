"""The depthwise convolutions, left in 16 bit: what reads the tensors that lose most in 8.

They are a tenth of the multiply-adds and less; whether an engine takes longer for them in 16 bit is
for a machine to tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_calibration.work import Step

if TYPE_CHECKING:
    from effnet_calibration.quantization import Quantization
    from effnet_calibration.work import Work


def _decide(work: Work, quantization: Quantization) -> Quantization:
    if not work.settings.keep_depthwise:
        return quantization
    names = (layer.name for layer in work.path.of_kind("depthwise"))
    return quantization.keeping((*quantization.kept, *names))


STEP = Step(_decide)
