"""The calibration table of an export: hard-swishes where they cost little, within the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_calibration.loss_meter import LossMeter
from effnet_calibration.quantized import apply
from effnet_edge.errors import UsageError
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_export.budget import mixed_within_budget
from effnet_export.calibration import Calibrated, SharedCalibration, calibrated
from effnet_export.gate import FAST_BY_DEFAULT, ParityGate

if TYPE_CHECKING:
    from effnet_calibration.mixed_precision import MixedPrecision
    from effnet_calibration.table import CalibrationTable
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.progress import Progress
    from effnet_export.loading import Loaded
    from effnet_export.pictures import CalibratedOn
    from effnet_export.request import ExportRequest


@dataclass(frozen=True)
class Tabulated:
    """A table, and how it came to be.

    Attributes:
        mixed: how the tensors in 16 bit were found, where a budget was set.
        too_far: what hard-swishes that nobody asked for did not hold, so that every SiLU stayed.
    """

    table: CalibrationTable
    mixed: MixedPrecision | None = None
    too_far: tuple[str, ...] = ()


def table_for(
    request: ExportRequest,
    loaded: Loaded,
    named: CalibratedOn,
    gate: ParityGate,
    progress: Progress,
) -> Tabulated:
    """Make the table that a request asks for, or read it.

    Args:
        gate: of the network itself, on the pictures of the gates.

    Raises:
        UsageError: hard-swishes are asked for, and the network has no SiLU.
        GateError: nothing holds the budget.
        CalibrationError: see `calibrated`.
    """
    folded = loaded.folded
    if request.fast_activations:
        _check_activation(folded)
    make = partial(
        calibrated, folded, named, loaded.source.preprocessing, request.scheme, progress=progress
    )
    found = make(settings=request.settings, shared=loaded.calibration)
    too_far: tuple[str, ...] = ()
    exact = request.exact_settings
    if exact is not None and found.observed is not None and folded.activation == "silu":
        too_far = tuple(_failures(request, loaded, named, found, gate, progress))
        if too_far:
            shared = loaded.calibration or SharedCalibration(found.observed)
            found = make(settings=exact, shared=shared)
    budget = request.budget
    if budget is None or isinstance(named, Path) or found.observed is None:
        return Tabulated(found.table, too_far=too_far)
    mixed = mixed_within_budget(
        folded,
        found.table.quantization(request.scheme.name),
        named,
        loaded.source.preprocessing,
        budget,
        progress,
        found.observed.exact,
    )
    quantizations = {request.scheme.name: mixed.best.quantization}
    return Tabulated(replace(found.table, quantizations=quantizations), mixed, too_far)


def _check_activation(network: EfficientNet) -> None:
    if network.activation != "silu":
        raise UsageError(
            f"--fast-activations: {network.variant.name} has {network.activation} activations, and "
            "no SiLU to replace: leave it out"
        )


def _failures(
    request: ExportRequest,
    loaded: Loaded,
    named: CalibratedOn,
    found: Calibrated,
    gate: ParityGate,
    progress: Progress,
) -> list[str]:
    """What a table with hard-swishes does not hold of what one that nobody asked for has to."""
    preprocessing = loaded.source.preprocessing
    simulated = apply(loaded.folded, found.table, request.scheme).simulated()
    loss = gate.loss(TorchClassifier(simulated, preprocessing, "simulated INT8"))
    failures = FAST_BY_DEFAULT[loss.output].judge(loss).failures
    if failures or request.budget is None or isinstance(named, Path) or found.observed is None:
        return failures
    meter = LossMeter(loaded.folded, named, preprocessing, found.observed.exact)
    quantization = found.table.quantization(request.scheme.name)
    return request.budget.check(meter.measure(quantization, progress))
