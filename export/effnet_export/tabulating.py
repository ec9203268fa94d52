"""The calibration table of an export: hard-swishes where they cost little, within the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from effnet_calibration.loss_meter import LossMeter
from effnet_calibration.quantized import apply
from effnet_edge.errors import UsageError
from effnet_edge.parity.models.torch import TorchClassifier
from effnet_export.budget import check_labels, mixed_within_budget
from effnet_export.calibration import Calibrated, SharedCalibration, calibrated
from effnet_export.gate import FAST_BY_DEFAULT, ParityGate

if TYPE_CHECKING:
    from effnet_calibration.calibrate import Observed
    from effnet_calibration.mixed_precision import MixedPrecision
    from effnet_calibration.schemes import QuantizationScheme
    from effnet_calibration.table import CalibrationTable
    from effnet_calibration.work import Settings
    from effnet_edge.model.network import EfficientNet
    from effnet_edge.parity import ParityResult
    from effnet_edge.pictures.protocol import Pictures
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
        UsageError: hard-swishes are asked for, and the network has no SiLU; or the drop is limited,
            and the labels are not those of the network.
        GateError: nothing holds the budget.
        CalibrationError: see `calibrated`.
    """
    if request.fast_activations:
        _check_activation(loaded.folded)
    making = _Making(request, loaded, named, progress)
    found = making.calibrated(request.settings)
    too_far: tuple[str, ...] = ()
    if making.can_fall_back(found):
        too_far = tuple(_beyond_default(loaded, found, request.scheme, gate))
        if too_far:
            found = making.with_every_silu(found)
    observed = found.observed
    if not request.is_bounded or isinstance(named, Path) or observed is None:
        return Tabulated(found.table, too_far=too_far)
    lost = making.loss(found, named)
    budget = request.budget_of(lost)
    check_labels(budget, lost)
    if making.can_fall_back(found) and not too_far:
        too_far = tuple(budget.check(lost))
        if too_far:
            found = making.with_every_silu(found)
    quantization = found.table.quantization(request.scheme.name)
    mixed = mixed_within_budget(
        loaded.folded,
        quantization,
        named,
        loaded.source.preprocessing,
        budget,
        request.chosen_target.row,
        progress,
        observed.exact,
    )
    quantizations = {request.scheme.name: mixed.best.quantization}
    return Tabulated(replace(found.table, quantizations=quantizations), mixed, too_far)


@dataclass(frozen=True)
class _Making:
    """Tables of one request."""

    request: ExportRequest
    loaded: Loaded
    named: CalibratedOn
    progress: Progress

    def calibrated(self, settings: Settings, observed: Observed | None = None) -> Calibrated:
        """One with these settings, on what was observed already if anything was; or as read."""
        shared = SharedCalibration(observed) if observed else None
        return calibrated(
            self.loaded.folded,
            self.named,
            self.loaded.source.preprocessing,
            self.request.scheme,
            settings,
            self.progress,
            self.loaded.calibration or shared,
        )

    def can_fall_back(self, found: Calibrated) -> bool:
        """Whether hard-swishes came that nobody asked for, of a network that was observed."""
        has_silu = self.loaded.folded.activation == "silu"
        return self.request.exact_settings is not None and found.observed is not None and has_silu

    def with_every_silu(self, found: Calibrated) -> Calibrated:
        """What `found` falls back to, made on what it observed."""
        exact = self.request.exact_settings
        assert exact is not None
        return self.calibrated(exact, found.observed)

    def loss(self, found: Calibrated, pictures: Pictures) -> ParityResult:
        """What a table loses on the pictures of the calibration."""
        assert found.observed is not None
        folded, preprocessing = self.loaded.folded, self.loaded.source.preprocessing
        meter = LossMeter(folded, pictures, preprocessing, found.observed.exact)
        return meter.measure(found.table.quantization(self.request.scheme.name), self.progress)


def _check_activation(network: EfficientNet) -> None:
    if network.activation != "silu":
        raise UsageError(
            f"--fast-activations: {network.variant.name} has {network.activation} activations, and "
            "no SiLU to replace: leave it out"
        )


def _beyond_default(
    loaded: Loaded, found: Calibrated, scheme: QuantizationScheme, gate: ParityGate
) -> list[str]:
    """What a table with hard-swishes does not hold of what one that nobody asked for has to."""
    simulated = apply(loaded.folded, found.table, scheme).simulated()
    model = TorchClassifier(simulated, loaded.source.preprocessing, "simulated INT8")
    loss = gate.loss(model)
    return FAST_BY_DEFAULT[loss.output].judge(loss).failures
