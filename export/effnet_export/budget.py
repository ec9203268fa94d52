"""Tensors left in 16 bit, so that INT8 loses no more than it may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet_calibration.mixed_precision import keep_for_budget
from effnet_edge.errors import GateError

if TYPE_CHECKING:
    from effnet_calibration.mixed_precision import MixedPrecision
    from effnet_calibration.outputs import ExactOutputs
    from effnet_calibration.quantization import Quantization
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.parity import Gate
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Pictures
    from effnet_edge.progress import Progress


def mixed_within_budget(
    folded: EfficientNet,
    quantization: Quantization,
    pictures: Pictures,
    preprocessing: Preprocessing,
    budget: Gate,
    progress: Progress,
    exact: ExactOutputs | None = None,
) -> MixedPrecision:
    """The fewest tensors in 16 bit that hold the budget.

    Raises:
        GateError: no choice of them does.
    """
    mixed = keep_for_budget(folded, quantization, pictures, preprocessing, budget, progress, exact)
    if not mixed.within_budget:
        kept = len(mixed.best.quantization.kept)
        raise GateError(
            f"the budget ({budget.describe()}) cannot be met: with {kept} of {mixed.tensors} "
            f"tensors in 16 bit, {'; '.join(budget.check(mixed.best.loss))}",
            "allow more, or use --fp16",
        )
    return mixed
