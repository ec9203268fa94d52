"""Tensors left in 16 bit, so that INT8 loses no more than it may."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from effnet_calibration.mixed_precision import keep_for_budget
from effnet_edge.errors import GateError, UsageError
from effnet_edge.parity import Gate
from effnet_edge.parity.measures.gates import unfit_labels
from effnet_edge.parity.measures.table import Measure, limited_measure
from effnet_export.advice import in_floats

if TYPE_CHECKING:
    from effnet_calibration.mixed_precision import MixedPrecision
    from effnet_calibration.outputs import ExactOutputs
    from effnet_calibration.quantization import Quantization
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.outputs import OutputKind
    from effnet_edge.parity import ParityResult
    from effnet_edge.pictures.image import Preprocessing
    from effnet_edge.pictures.protocol import Pictures
    from effnet_edge.progress import Progress
    from effnet_edge.targets import Target


def loss_without_labels(output: OutputKind) -> Measure | None:
    """What bounds the loss on pictures without labels; None for features, which have no budget."""
    return limited_measure("max_kl", output) or limited_measure("max_nrmse", output)


def share_of(loss: ParityResult, share: float) -> Gate:
    """A budget of a share, 0..1, of a loss; raises `GateError` for one that is no number."""
    measure = loss_without_labels(loss.output)
    assert measure is not None
    assert measure.limit is not None
    value = loss.value(measure.key)
    if value is None or not math.isfinite(value):
        raise GateError("what INT8 loses without a budget is no number, and has no share")
    return Gate(**{measure.limit.name: share * value})


def check_labels(budget: Gate, compared: ParityResult) -> None:
    """Raise `UsageError` for a limit on the drop where the network is right by chance alone.

    Args:
        compared: the network, as the reference, on the pictures whose labels tell of the drop.
    """
    for problem in unfit_labels(budget, compared):
        raise UsageError(
            f"--max-drop: {problem}: give the pictures the classes of this model, or use --max-kl"
        )


def mixed_within_budget(
    folded: EfficientNet,
    quantization: Quantization,
    pictures: Pictures,
    preprocessing: Preprocessing,
    budget: Gate,
    target: Target,
    progress: Progress,
    exact: ExactOutputs | None = None,
) -> MixedPrecision:
    """The fewest tensors in 16 bit that hold the budget.

    Args:
        target: that the model is for, which has other precisions where none does.

    Raises:
        GateError: no choice of them does.
    """
    mixed = keep_for_budget(folded, quantization, pictures, preprocessing, budget, progress, exact)
    if not mixed.within_budget:
        kept = len(mixed.best.quantization.kept)
        raise GateError(
            f"the budget ({budget.describe()}) cannot be met: with {kept} of {mixed.tensors} "
            f"tensors in 16 bit, {'; '.join(budget.check(mixed.best.loss))}",
            f"allow more, or use {in_floats(target)}",
        )
    return mixed
