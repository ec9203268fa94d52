"""The last block's projection, left in 16 bit where a target can afford it.

Nothing averages its noise out: behind it are the head and the classifier alone. On B0 it is nearly
half of what INT8 loses, and takes no time that could be measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_calibration.work import Step

if TYPE_CHECKING:
    from effnet_calibration.quantization import Quantization
    from effnet_calibration.work import Work


def _decide(work: Work, quantization: Quantization) -> Quantization:
    last = work.path.last_projection()
    if not work.settings.keep_last_projection or last.kind != "project":
        return quantization
    return quantization.keeping((*quantization.kept, last.name))


STEP = Step(_decide)
